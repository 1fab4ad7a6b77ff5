//! Imports: a command brings contents one by one, each of which is stored when it has its digest, then what names them. A name is
//! linked when all that it needs is here.
//!
//! `PUT /v1/import/DIGEST?length=N` stores a content, `POST /v1/import/wanted` says which of some digests are not here, `POST
//! /v1/import/link` links names. Nothing is linked before the last: a bundle that turns out to be wrong leaves only contents that
//! nobody can ask for.

use super::control::{argument, failed, reply};
use super::{Admin, Refused};
use crate::bundle::{Closure, Declared, Platforms};
use crate::cache::ArrivingTag;
use crate::oci::{Digest, MAX_MANIFEST, MediaType, Registry, Repository, Tag};
use crate::server::Body;
use crate::store::IngestError;
use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of a request that names things.
const REQUEST: usize = 64 << 20;
/// Bytes written at a time.
const BATCH: usize = 1 << 20;
/// Missing contents that are named in an answer.
const NAMED: usize = 10;

/// Bundles that are remembered while something of them is missing; the oldest goes.
const WAITING: usize = 16;

/// What a bundle names, as the command read it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Naming {
    entries: Vec<Entry>,
    #[serde(default)]
    platforms: Vec<String>,
    #[serde(default)]
    absent: Vec<String>,
    /// Tags that are newer here give way.
    #[serde(default)]
    force: bool,
    /// Say what would be, and link nothing.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// `<upstream>/<repository>`.
    repository: String,
    tag: Option<String>,
    digest: String,
    media_type: Option<String>,
    /// When the tag moved, in Unix seconds.
    moved: Option<u64>,
}

/// A checked entry.
struct Named {
    repository: Repository,
    tag: Option<Tag>,
    digest: Digest,
    media_type: Option<MediaType>,
    moved: SystemTime,
}

impl Admin {
    pub(super) async fn import(&self, request: http::Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let what = path.strip_prefix("/v1/import/").unwrap_or_default();
        let length = argument(request.uri().query(), "length").parse().ok();
        let offset = argument(request.uri().query(), "offset").parse().ok();
        let answer = match (request.method(), what) {
            (&Method::POST, "wanted") => self.wanted(request.into_body()).await,
            (&Method::POST, "link") => self.link(request.into_body()).await,
            (&Method::PUT, digest) => match digest.parse() {
                Ok(digest) => self.receive(digest, length, offset, request.into_body()).await,
                Err(_) => Err((StatusCode::BAD_REQUEST, format!("'{digest}' is no digest"))),
            },
            _ => Err((StatusCode::NOT_FOUND, "there is no such command".to_owned())),
        };
        match answer {
            Ok(value) => reply(StatusCode::OK, &value),
            Err((status, message)) => reply(status, &json!({ "error": message })),
        }
    }

    /// Which of the digests, a JSON list, are not stored.
    async fn wanted(&self, body: Incoming) -> Result<Value, Refused> {
        let digests: Vec<String> = read(body).await?;
        let digests = digests.iter().map(|digest| digest.parse()).collect::<Result<Vec<Digest>, _>>();
        let digests = digests.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
        let wanted = digests.iter().filter(|digest| self.store.length(digest).is_none());
        let usage = self.store.usage();
        Ok(json!({
            "wanted": wanted.map(ToString::to_string).collect::<Vec<_>>(),
            "free_bytes": usage.limit.saturating_sub(usage.bytes),
            "limit_bytes": usage.limit,
        }))
    }

    /// Stores a content, if it has its digest. `offset`: it is a slice, and more may come in another volume.
    async fn receive(
        &self,
        digest: Digest,
        length: Option<u64>,
        offset: Option<u64>,
        mut body: Incoming,
    ) -> Result<Value, Refused> {
        if self.store.length(&digest).is_some() {
            return Ok(json!({ "present": true }));
        }
        let mut ingest = match self.store.ingest(&digest, length).await {
            Ok(ingest) => ingest,
            Err(IngestError::Busy(_)) => {
                let message =
                    format!("{digest} is being stored by somebody else: another import, or a pull; try again");
                return Err((StatusCode::CONFLICT, message));
            }
            Err(error) => return Err(failed(error)),
        };
        // What is kept of an interrupted import is skipped: the digest decides whether both are the same content.
        let mut skip = ingest.received().checked_sub(offset.unwrap_or_default()).ok_or_else(|| {
            let message = format!(
                "{digest} comes in slices, and an earlier one is missing: import the volumes before this one first"
            );
            (StatusCode::CONFLICT, message)
        })?;
        let mut batch = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| (StatusCode::BAD_REQUEST, format!("{digest} ended before its end: {error}")))?;
            let Ok(mut data) = frame.into_data() else { continue };
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
            skip -= skipped as u64;
            batch.extend_from_slice(&data.split_off(skipped));
            if batch.len() >= BATCH {
                ingest.write(batch.split().freeze()).await.map_err(failed)?;
            }
        }
        ingest.write(batch.freeze()).await.map_err(failed)?;
        if offset.is_some() && !ingest.is_whole() {
            return Ok(json!({ "present": false }));
        }
        let verified = ingest.verify().await.map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
        verified.commit().await.map_err(failed)?;
        Ok(json!({ "present": false }))
    }

    /// Links what is whole, of this bundle and of those before it that wait for more, and says what is not.
    async fn link(&self, body: Incoming) -> Result<Value, Refused> {
        let naming: Naming = read(body).await?;
        let _one = self.importing.try_lock().map_err(|_| {
            (StatusCode::CONFLICT, "another import is linking just now; try again when it is done".to_owned())
        })?;
        let mut waiting = self.waiting().await?;
        // The same bundle again, or its last volume: it is looked at once.
        waiting.retain(|known| known.entries.iter().all(|entry| !naming.entries.contains(entry)));
        let dry_run = naming.dry_run;
        waiting.push(naming);
        let mut result = Linked::default();
        let mut left = Vec::new();
        for naming in waiting {
            let incomplete = self.link_one(&naming, dry_run, &mut result).await?;
            if !incomplete.is_empty() {
                left.push(Naming { entries: incomplete, ..naming });
            }
        }
        if !dry_run {
            let too_many = left.len().saturating_sub(WAITING);
            let content = serde_json::to_vec(&left[too_many..]).map_err(failed)?;
            self.store.set_pending_imports(content.into()).await.map_err(failed)?;
        }
        let Linked { count: linked, newer, incomplete } = result;
        tracing::info!(linked, newer = newer.len(), incomplete = incomplete.len(), "imported");
        Ok(json!({ "linked": linked, "newer": newer, "incomplete": incomplete }))
    }

    /// Links what is whole of one bundle; the entries that are not.
    async fn link_one(&self, naming: &Naming, dry_run: bool, result: &mut Linked) -> Result<Vec<Entry>, Refused> {
        let named = naming.entries.iter().map(|entry| self.named(entry)).collect::<Result<Vec<_>, _>>()?;
        let absent = naming.absent.iter().filter_map(|digest| digest.parse().ok()).collect();
        let declared = Declared { platforms: Platforms::of(&naming.platforms), absent };
        let mut left = Vec::new();
        for (named, entry) in named.iter().zip(&naming.entries) {
            let closure = Closure::of(&self.store, named.digest, named.media_type.clone(), &declared).await;
            let closure = closure.map_err(failed)?;
            if !closure.is_complete() {
                let missing: Vec<String> = closure.missing.iter().take(NAMED).map(ToString::to_string).collect();
                let count = closure.missing.len();
                result.incomplete.push(json!({ "name": named.name(), "missing": missing, "count": count }));
                left.push(entry.clone());
            } else if dry_run || self.arrive(named, closure, naming.force).await? {
                result.count += 1;
            } else {
                result.newer.push(named.name());
            }
        }
        Ok(left)
    }

    /// What earlier imports wait for; what cannot be read is forgotten.
    async fn waiting(&self) -> Result<Vec<Naming>, Refused> {
        let content = self.store.pending_imports().await.map_err(failed)?;
        Ok(content.and_then(|content| serde_json::from_slice(&content).ok()).unwrap_or_default())
    }

    async fn arrive(&self, named: &Named, closure: Closure, force: bool) -> Result<bool, Refused> {
        let untyped: MediaType = MediaType::OCI_MANIFEST.parse().map_err(failed)?;
        let typed = closure.manifests.into_iter();
        let manifests: Vec<_> = typed.map(|(digest, kind)| (digest, kind.unwrap_or_else(|| untyped.clone()))).collect();
        let tag = named.tag.clone().map(|tag| ArrivingTag { tag, digest: named.digest, moved: named.moved });
        self.cache.arrive(&named.repository, &manifests, tag.as_ref(), force).await.map_err(failed)
    }

    fn named(&self, entry: &Entry) -> Result<Named, Refused> {
        let wrong =
            |what: &str| (StatusCode::BAD_REQUEST, format!("the bundle names '{}', which is {what}", entry.repository));
        let (registry, name) =
            entry.repository.split_once('/').ok_or_else(|| wrong("no repository with its upstream before it"))?;
        let registry = Registry::new(registry);
        if !self.routes.registries().contains(&registry) {
            let what = format!(
                "of an upstream that is not configured; add [[upstream]] name = \"{registry}\" (with sealed = true it is never \
                 dialled), or import with --as"
            );
            return Err(wrong(&what));
        }
        let name = name.parse().map_err(|_| wrong("no name of a repository"))?;
        let tag = entry
            .tag
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|_| wrong("tagged with something that is no tag"))?;
        let digest = entry.digest.parse().map_err(|_| wrong("described by something that is no digest"))?;
        let media_type = entry.media_type.as_deref().and_then(|kind| kind.parse().ok());
        let moved = UNIX_EPOCH + Duration::from_secs(entry.moved.unwrap_or_default().min(u64::from(u32::MAX) * 8));
        Ok(Named { repository: Repository { registry, name }, tag, digest, media_type, moved })
    }
}

/// What became of names.
#[derive(Default)]
struct Linked {
    count: u64,
    newer: Vec<String>,
    incomplete: Vec<Value>,
}

impl Named {
    fn name(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.repository),
            None => format!("{}@{}", self.repository, self.digest),
        }
    }
}

async fn read<T: serde::de::DeserializeOwned>(body: Incoming) -> Result<T, Refused> {
    let wrong = |error: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, error.to_string());
    let bytes: Bytes = Limited::new(body, REQUEST).collect().await.map_err(|error| wrong(&error))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| wrong(&error))
}

/// A manifest is no longer than this.
const _: () = assert!(MAX_MANIFEST <= REQUEST);
