//! Answers to GET and HEAD: manifests, blobs and lists, from what the cache says of them.

use super::content;
use super::error::Problem;
use super::lists::{self, Cut};
use super::multipart;
use super::reply::{CONTENT_DIGEST, JSON, OCTETS, Reply, list_reply, value};
use super::request;
use super::service::{Inner, RequestContext};
use crate::cache::{
    BlobAnswer, BlobQuery, CacheError, Content, Entries, List, ListAnswer, ManifestPresence, ManifestRequest,
};
use crate::oci::{Accept, Digest, MediaType, Ranges, Reference, Registry, Repository};
use crate::server::http::body::Body;
use crate::store::ListKey;
use http::{HeaderValue, Response, StatusCode, header};

impl Inner {
    pub(in crate::server) async fn tags(
        &self,
        repository: &Repository,
        ctx: &RequestContext<'_>,
    ) -> Result<Reply, Problem> {
        let path = ctx.naming.path(&format!("{}/tags/list", repository.name));
        self.list(&ListKey::Tags(repository.clone()), ctx, &path).await
    }

    pub(in crate::server) async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        ctx: &RequestContext<'_>,
    ) -> Result<Reply, Problem> {
        let path = ctx.naming.path(&format!("{}/referrers/{digest}", repository.name));
        let answer = self.list(&ListKey::Referrers(repository.clone(), *digest), ctx, &path).await;
        answer.map_err(Problem::of_referrers)
    }

    pub(in crate::server) async fn catalogue(
        &self,
        registry: &Registry,
        ctx: &RequestContext<'_>,
    ) -> Result<Reply, Problem> {
        self.list(&ListKey::Catalogue(registry.clone()), ctx, &ctx.naming.path("_catalog")).await
    }

    async fn list(&self, key: &ListKey, ctx: &RequestContext<'_>, path: &str) -> Result<Reply, Problem> {
        let cut = Cut::parse(ctx.query)?;
        let ListAnswer { list, provenance, room } =
            self.cache.list(key, &cut.for_upstream(ctx.naming), ctx.no_cache()).await?;
        let entries = match &list {
            List::Whole(entries) => entries,
            List::Page(page) => &page.entries,
        };
        let room = match room {
            Some(room) => Some(room),
            None => self.cache.documents().room(cut.most_bytes(entries)).await.map_err(CacheError::from)?,
        };
        let page = match &list {
            List::Whole(entries) => {
                let visible = self.visible(key, ctx, entries);
                lists::page(&cut, key, ctx.naming, path, visible.as_ref().unwrap_or(entries))
            }
            List::Page(passed) => {
                let visible = self.visible(key, ctx, &passed.entries);
                let entries = visible.as_ref().unwrap_or(&passed.entries);
                let mut page = lists::page(&cut.uncut(), key, ctx.naming, path, entries);
                let next = passed.next.as_deref().map(|query| lists::passed_link(path, query, ctx.naming));
                page.link = page.link.or(next);
                page.filtered |= passed.filtered;
                page
            }
        };
        let kind = match key {
            ListKey::Referrers(..) => HeaderValue::from_static(MediaType::OCI_INDEX),
            ListKey::Tags(_) | ListKey::Catalogue(_) => JSON,
        };
        Ok(list_reply(page, kind, ctx.is_head(), provenance, room))
    }

    /// The repositories of a catalogue that the caller may pull; `None` if nothing is kept from anybody.
    pub(in crate::server) fn visible(
        &self,
        key: &ListKey,
        ctx: &RequestContext<'_>,
        entries: &Entries,
    ) -> Option<Entries> {
        let (ListKey::Catalogue(registry), Entries::Names(names)) = (key, entries) else { return None };
        if !self.access.restricts_pulls() {
            return None;
        }
        let visible = names.iter().filter(|name| self.may_pull(ctx, registry, name));
        Some(Entries::Names(visible.cloned().collect()))
    }

    /// Whether the caller may pull from the repository of this name, as a list has it.
    pub(in crate::server) fn may_pull(&self, ctx: &RequestContext<'_>, registry: &Registry, name: &str) -> bool {
        let repository = name.parse().ok().map(|name| Repository { registry: registry.clone(), name });
        repository.is_some_and(|it| self.access.may_see(ctx.guest, &it))
    }

    pub(in crate::server) async fn manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        ctx: &RequestContext<'_>,
    ) -> Result<Reply, Problem> {
        let lines = ctx.headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
        let accept = Accept::from_lines(lines);
        let request = ManifestRequest { repository, reference, accept: &accept, revalidate: ctx.no_cache() };
        let (body, ManifestPresence { digest, media_type, length, provenance }) = if ctx.is_head() {
            (Body::empty(), self.cache.manifest_head(request).await?)
        } else {
            let answer = self.cache.manifest(request).await?;
            (Body::full(answer.manifest.content.clone()), answer.into())
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, value(media_type.as_str()));
        headers.insert(header::CONTENT_LENGTH, length.into());
        headers.insert(CONTENT_DIGEST, value(&digest.to_string()));
        Ok(Reply { response, provenance: Some(provenance), detail: None })
    }

    pub(in crate::server) async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        ctx: &RequestContext<'_>,
    ) -> Result<Reply, Problem> {
        let ranges = if ctx.is_head() { None } else { request::ranges(ctx.headers)? };
        let want = match &ranges {
            _ if ctx.is_head() => BlobQuery::Head,
            Some(Ranges::One(range)) => BlobQuery::Range(*range),
            Some(Ranges::Many(ranges)) => BlobQuery::Ranges(ranges),
            None => BlobQuery::Whole,
        };
        let BlobAnswer { length, range, content, provenance } = self.cache.blob(repository, digest, want).await?;
        let (several, unmeasured) = (matches!(content, Content::Ranges(_)), matches!(content, Content::Unmeasured));
        let body = content::body(content);
        // An answer to HEAD has none, and says how long the blob is.
        let bytes = if ctx.is_head() { length } else { body.length().unwrap_or(length) };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, OCTETS);
        if !unmeasured {
            headers.insert(header::CONTENT_LENGTH, bytes.into());
        }
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CONTENT_DIGEST, value(&digest.to_string()));
        if let Some(range) = range {
            headers.insert(header::CONTENT_RANGE, value(&range.content_range(length)));
        }
        if several {
            headers.insert(header::CONTENT_TYPE, value(&multipart::content_type(digest)));
        }
        if several || range.is_some() {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        Ok(Reply { response, provenance: Some(provenance), detail: None })
    }
}
