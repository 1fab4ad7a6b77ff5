//! What a bundle names becomes links, as soon as all that a name needs is here. What waits for other volumes is kept in the store's
//! `imports` file, over restarts too.

use super::control::failed;
use super::slices::Sliced;
use super::{Admin, Refused};
use crate::bundle::{Closure, Declared, Platforms, VolumeNotes};
use crate::cache::ArrivingTag;
use crate::oci::{Digest, MediaType, Reference, Registry, Repository, Tag};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Missing contents that are named in an answer.
const NAMED: usize = 10;
/// Bundles that are remembered; the oldest goes.
const WAITING: usize = 16;
/// Volumes of a bundle.
const MOST_VOLUMES: u32 = 100_000;

/// What a bundle names, as the command read it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Naming {
    entries: Vec<Entry>,
    #[serde(default)]
    platforms: Vec<String>,
    #[serde(default)]
    absent: Vec<String>,
    /// Whether indexes may lack platforms although nothing says so: other tools write such.
    #[serde(default)]
    sparse: bool,
    /// Tags that are newer here give way.
    #[serde(default)]
    force: bool,
    /// Say what would be, and link nothing.
    #[serde(default)]
    dry_run: bool,
    /// Which volume it comes with.
    #[serde(default, skip_serializing)]
    volume: Option<VolumeNotes>,
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

/// What imports wait for.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Pending {
    waiting: Vec<Naming>,
    volumes: Vec<Arrived>,
    /// Slices that are here, by the blob that they are of.
    pub(super) slices: BTreeMap<String, Sliced>,
}

/// The volumes of a bundle that have come.
#[derive(Debug, Deserialize, Serialize)]
struct Arrived {
    bundle: String,
    of: u32,
    seen: BTreeSet<u32>,
}

/// A checked entry.
struct Named {
    repository: Repository,
    tag: Option<Tag>,
    digest: Digest,
    media_type: Option<MediaType>,
    moved: SystemTime,
}

/// What became of names.
#[derive(Default)]
struct Linked {
    count: u64,
    newer: Vec<String>,
    incomplete: Vec<Value>,
}

impl Admin {
    /// Links what is whole, of this bundle and of those before it that wait for more, and says what is not.
    pub(super) async fn link(&self, naming: Naming) -> Result<Value, Refused> {
        let _one = self.importing.lock().await;
        let mut pending = self.pending().await?;
        let (dry_run, volume) = (naming.dry_run, naming.volume.clone());
        // The new one alone may be wrong: what waits was right when it came, and the configuration may have changed since.
        self.check(&naming)?;
        // The same bundle again, or its last volume: it is looked at once.
        pending.waiting.retain(|known| known.entries.iter().all(|entry| !naming.entries.contains(entry)));
        pending.waiting.push(naming);
        let mut result = Linked::default();
        let mut left = Vec::new();
        for naming in std::mem::take(&mut pending.waiting) {
            let incomplete = self.link_one(&naming, dry_run, &mut result).await?;
            if !incomplete.is_empty() {
                left.push(Naming { entries: incomplete, ..naming });
            }
        }
        let missing = volume.as_ref().map(|volume| pending.arrived(volume));
        if !dry_run {
            let too_many = left.len().saturating_sub(WAITING);
            pending.waiting = left.split_off(too_many);
            self.keep_pending(&pending).await?;
        }
        let Linked { count: linked, newer, incomplete } = result;
        tracing::info!(linked, newer = newer.len(), incomplete = incomplete.len(), "imported");
        Ok(json!({
            "linked": linked, "newer": newer, "incomplete": incomplete,
            "volumes": volume.map(|volume| volume.of), "volumes_missing": missing,
        }))
    }

    /// What imports wait for; what cannot be read is forgotten.
    pub(super) async fn pending(&self) -> Result<Pending, Refused> {
        let content = self.store.pending_imports().await.map_err(failed)?;
        Ok(content.and_then(|content| serde_json::from_slice(&content).ok()).unwrap_or_default())
    }

    pub(super) async fn keep_pending(&self, pending: &Pending) -> Result<(), Refused> {
        let content = serde_json::to_vec(pending).map_err(failed)?;
        self.store.set_pending_imports(content.into()).await.map_err(failed)
    }

    fn check(&self, naming: &Naming) -> Result<(), Refused> {
        if naming.volume.as_ref().is_some_and(|volume| volume.of > MOST_VOLUMES || volume.volume > volume.of) {
            return Err((StatusCode::BAD_REQUEST, "the bundle says of itself what cannot be".to_owned()));
        }
        naming.entries.iter().try_for_each(|entry| self.named(entry).map(drop))
    }

    /// Links what is whole of one bundle; the entries that are not.
    async fn link_one(&self, naming: &Naming, dry_run: bool, result: &mut Linked) -> Result<Vec<Entry>, Refused> {
        let absent = naming.absent.iter().filter_map(|digest| digest.parse().ok()).collect();
        let declared = Declared { platforms: Platforms::of(&naming.platforms), absent, sparse: naming.sparse };
        let mut left = Vec::new();
        for entry in &naming.entries {
            let Ok(named) = self.named(entry) else { continue };
            let closure = Closure::of(&self.store, named.digest, named.media_type.clone(), &declared).await;
            let closure = closure.map_err(failed)?;
            if !closure.is_complete() {
                let missing: Vec<String> = closure.missing.iter().take(NAMED).map(ToString::to_string).collect();
                let count = closure.missing.len();
                result.incomplete.push(json!({ "name": named.name(), "missing": missing, "count": count }));
                left.push(entry.clone());
            } else if dry_run || self.arrive(&named, closure, naming.force).await? {
                result.count += 1;
            } else {
                result.newer.push(named.name());
            }
        }
        Ok(left)
    }

    async fn arrive(&self, named: &Named, closure: Closure, force: bool) -> Result<bool, Refused> {
        let untyped: MediaType = MediaType::OCI_MANIFEST.parse().map_err(failed)?;
        let typed = closure.manifests.into_iter();
        let manifests: Vec<_> = typed.map(|(digest, kind)| (digest, kind.unwrap_or_else(|| untyped.clone()))).collect();
        let tag = named.tag.clone().map(|tag| ArrivingTag { tag, digest: named.digest, moved: named.moved });
        let arrived = self.cache.arrive(&named.repository, &manifests, tag.as_ref(), force).await.map_err(failed)?;
        self.cache.forget_missing(&named.repository, |missing| match missing {
            Reference::Digest(digest) => self.store.length(digest).is_some(),
            Reference::Tag(missing) => named.tag.as_ref() == Some(missing),
        });
        Ok(arrived)
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

impl Pending {
    /// Notes that a volume has come whole; the volumes of its bundle that have not.
    fn arrived(&mut self, volume: &VolumeNotes) -> Vec<u32> {
        let is_it = |arrived: &Arrived| arrived.bundle == volume.bundle && arrived.of == volume.of;
        let mut arrived = match self.volumes.iter().position(is_it) {
            Some(at) => self.volumes.remove(at),
            None => Arrived { bundle: volume.bundle.clone(), of: volume.of, seen: BTreeSet::new() },
        };
        arrived.seen.insert(volume.volume);
        let missing = (1..=arrived.of).filter(|number| !arrived.seen.contains(number)).collect();
        self.volumes.push(arrived);
        let too_many = self.volumes.len().saturating_sub(WAITING);
        self.volumes.drain(..too_many);
        missing
    }
}

impl Named {
    fn name(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.repository),
            None => format!("{}@{}", self.repository, self.digest),
        }
    }
}
