//! Blob uploads: what a request says, in upstream's terms, and upstream's answer in the client's.

use super::error::Problem;
use super::reply::{CONTENT_DIGEST, Reply, value};
use super::request::{Target, parameter};
use super::service::{Inner, RequestContext};
use crate::cache::{BodyLost, UploadBody, Uploaded};
use crate::config::Right;
use crate::oci::{Deed, Name, Repository};
use crate::server::http::body::Body;
use crate::upstream::{BodyHeaders, UploadStart, UploadStep};
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

impl Inner {
    pub(in crate::server) async fn begin_upload(
        &self,
        repository: &Repository,
        ctx: &RequestContext<'_>,
        body: Incoming,
    ) -> Result<Reply, Problem> {
        let parameter = |name| parameter(ctx.query, name).filter(|value| !value.is_empty());
        let start = UploadStart {
            mount: Box::pin(self.mount(repository, ctx)).await,
            digest: parameter("digest").map(Into::into),
            algorithm: parameter("digest-algorithm").map(Into::into),
        };
        let uploaded = self.cache.begin_upload(repository, &start, &body_headers(ctx), Arriving::new(body)).await?;
        Ok(reply(repository, ctx, uploaded))
    }

    pub(in crate::server) async fn upload(
        &self,
        repository: &Repository,
        session: &str,
        ctx: &RequestContext<'_>,
        body: Incoming,
    ) -> Result<Reply, Problem> {
        let step = match *ctx.method {
            Method::PUT => UploadStep::End(parameter(ctx.query, "digest").unwrap_or_default().into()),
            Method::PATCH => UploadStep::Chunk,
            Method::DELETE => UploadStep::Cancel,
            _ => UploadStep::Status,
        };
        let (headers, body) = (body_headers(ctx), Arriving::new(body));
        let uploaded = self.cache.continue_upload(repository, session, &step, &headers, body).await?;
        Ok(reply(repository, ctx, uploaded))
    }

    /// What is to be mounted, and from where in upstream's terms. A client mounts between any two repositories of what it takes
    /// for one registry; where upstream could not, or the caller may not read there, it is a plain upload.
    async fn mount(&self, repository: &Repository, ctx: &RequestContext<'_>) -> Option<(String, Option<Name>)> {
        let digest = parameter(ctx.query, "mount").filter(|digest| !digest.is_empty())?.into_owned();
        let Some(from) = parameter(ctx.query, "from").filter(|from| !from.is_empty()) else {
            // From wherever upstream finds it: that is for those who may read everything.
            return (!self.access.restricts_pulls()).then_some((digest, None));
        };
        let from = self.named_alike(&from, ctx)?;
        if from.registry != repository.registry {
            return None;
        }
        let deed = Deed::Blob(from.name.clone(), digest.parse().ok()?);
        let allowed = self.permit(ctx, Right::Pull, &from.registry, Some(&from), &deed).await;
        allowed.is_ok().then_some((digest, Some(from.name)))
    }

    /// The repository that the client would reach under this name in the way in which it has sent this request.
    fn named_alike(&self, name: &str, ctx: &RequestContext<'_>) -> Option<Repository> {
        let prefix = ctx.naming.prefix.as_ref().map(|prefix| format!("/{prefix}")).unwrap_or_default();
        let path = format!("{prefix}/v2/{name}/tags/list");
        match self.routes.resolve(&path, Some(ctx.query), ctx.host).ok()?.target {
            Target::Tags(repository) => Some(repository),
            _ => None,
        }
    }
}

fn body_headers(ctx: &RequestContext<'_>) -> BodyHeaders {
    let header = |name| ctx.headers.get(name).cloned();
    BodyHeaders { media_type: header(header::CONTENT_TYPE), range: header(header::CONTENT_RANGE) }
}

fn reply(repository: &Repository, ctx: &RequestContext<'_>, uploaded: Uploaded) -> Reply {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let name = &repository.name;
    let mut status = StatusCode::NO_CONTENT;
    match uploaded {
        Uploaded::Session { session, range, uuid, chunk_min_length } => {
            let location = ctx.naming.location(&format!("{name}/blobs/uploads/{session}"));
            headers.insert(header::LOCATION, value(&location));
            for (header, said) in [(header::RANGE, range), (UPLOAD_UUID, uuid), (CHUNK_MIN_LENGTH, chunk_min_length)] {
                if let Some(said) = said {
                    headers.insert(header, value(&said));
                }
            }
            if *ctx.method != Method::GET {
                status = StatusCode::ACCEPTED;
                headers.insert(header::CONTENT_LENGTH, 0.into());
            }
        }
        Uploaded::Created { digest } => {
            status = StatusCode::CREATED;
            let location = ctx.naming.path(&format!("{name}/blobs/{digest}"));
            headers.insert(header::LOCATION, value(&location));
            headers.insert(CONTENT_DIGEST, value(&digest));
            headers.insert(header::CONTENT_LENGTH, 0.into());
        }
        Uploaded::Cancelled => {}
    }
    *response.status_mut() = status;
    Reply { response, provenance: None, detail: None }
}

/// A request's body, read as it is asked for.
struct Arriving {
    body: Incoming,
    length: Option<u64>,
}

impl Arriving {
    fn new(body: Incoming) -> Self {
        let length = body.size_hint().exact();
        Self { body, length }
    }
}

impl UploadBody for Arriving {
    fn length(&self) -> Option<u64> {
        self.length
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyLost> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| BodyLost::Broken(error.to_string()))?;
            if let Ok(chunk) = frame.into_data()
                && !chunk.is_empty()
            {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }
}
