//! Answers to writes: manifests that are put, and what is deleted.

use super::error::Problem;
use super::read_body;
use super::reply::{CONTENT_DIGEST, Reply, value};
use super::service::{Inner, RequestContext};
use crate::cache::{Provenance, Put};
use crate::oci::{Code, Digest, MAX_MANIFEST, Reference, Repository, Tag};
use crate::server::http::body::Body;
use crate::telemetry::CacheStatus;
use http::header::{self, HeaderName};
use http::{HeaderValue, Response, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Tags that one request may set besides its own: what the specification asks registries to take at least.
const TAGS: usize = 10;

impl Inner {
    pub(in crate::server) async fn put_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        ctx: &RequestContext<'_>,
        body: Incoming,
    ) -> Result<Reply, Problem> {
        let media_type = ctx.headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str).transpose();
        let media_type = media_type.map_err(|_| invalid("Content-Type has characters that no media type has"))?;
        let tags = tags(ctx.query)?;
        let (stall, documents) = (self.cache.limits().stall_timeout, self.cache.documents());
        let content = read_body::collect(body, "the manifest", MAX_MANIFEST, stall, documents).await?;
        if let Reference::Digest(digest) = reference
            && !digest.matches(&content)
        {
            self.metrics.digest_failures.with_label_values(&["push"]).inc();
            let found = Digest::of(digest.algorithm(), &content);
            let message = format!("the manifest is not what its digest names: {} bytes with {found}", content.len());
            return Err(Problem::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, &message));
        }
        let put = Put {
            repository: repository.clone(),
            reference: reference.clone(),
            tags,
            media_type: media_type.map(str::to_owned),
            content,
        };
        let taken = self.cache.put_manifest(put).await.map_err(|error| Problem::from(error).of_write())?;
        let mut reply = done(StatusCode::CREATED, taken.stored);
        let headers = reply.response.headers_mut();
        let location = ctx.naming.location(&format!("{}/manifests/{}", repository.name, taken.digest));
        headers.insert(header::LOCATION, value(&location));
        headers.insert(CONTENT_DIGEST, value(&taken.digest.to_string()));
        if let Some(subject) = &taken.subject {
            headers.insert(SUBJECT, value(subject));
        }
        for tag in &taken.tags {
            headers.append(TAG, value(tag));
        }
        Ok(reply)
    }

    pub(in crate::server) async fn delete_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Reply, Problem> {
        let deleted = self.cache.delete_manifest(repository, reference).await;
        deleted.map_err(|error| Problem::from(error).of_write())?;
        Ok(done(StatusCode::ACCEPTED, false))
    }

    pub(in crate::server) async fn delete_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Reply, Problem> {
        let deleted = self.cache.delete_blob(repository, digest).await;
        deleted.map_err(|error| Problem::from(error).of_write())?;
        Ok(done(StatusCode::ACCEPTED, false))
    }
}

/// An answer without a body.
fn done(status: StatusCode, stored: bool) -> Reply {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, 0.into());
    let provenance = Provenance { stored, ..Provenance::new(CacheStatus::Bypass) };
    Reply { response, provenance: Some(provenance), detail: None }
}

/// What `?tag=` asks for, as often as it stands there.
fn tags(query: &str) -> Result<Vec<Tag>, Problem> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let named = pairs.filter(|(key, _)| *key == "tag").map(|(_, tag)| {
        let tag = percent_decode_str(tag).decode_utf8().map_err(|_| invalid("a tag is no text"))?;
        tag.parse().map_err(|error| invalid(&format!("{error}")))
    });
    let tags: Vec<Tag> = named.collect::<Result<_, Problem>>()?;
    if tags.len() > TAGS {
        return Err(invalid(&format!("one request sets at most {TAGS} tags")));
    }
    Ok(tags)
}

fn invalid(message: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, message)
}
