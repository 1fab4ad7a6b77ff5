//! From a scope to everything that belongs to it: tags, manifests with parents first, blobs by first use. Only manifests are read.
//!
//! The order is that of the sorted names, so that one scope of one store gives one plan.

use super::Scope;
use super::scope::{Platforms, Wanted};
use crate::oci::{Digest, MAX_DEPTH, Manifest, MediaType, Repository, Tag};
use crate::store::{Hold, RepositoryLinks, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A plan larger than this is refused: its lists would not fit into memory beside the daemon's work.
const MOST_ITEMS: usize = 2_000_000;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A reference that is none.
    #[error("'{0}' is no reference: write <upstream>/<repository>, perhaps with :tag or @digest behind it")]
    Reference(String),
    /// Something that is not stored.
    #[error("{0} is not stored here; `larder list` shows what is, and `larder warm {0}` brings it in")]
    Absent(String),
    /// Nothing is in scope.
    #[error("nothing that is stored is in this scope; `larder list` shows what is stored by tag")]
    Empty,
    /// Tags of several repositories cannot stand without their repositories.
    #[error("tags without their repository are for one repository, and this scope has {0}; leave out --repository")]
    SeveralRepositories(usize),
    /// Too much for one export.
    #[error("more than {MOST_ITEMS} contents are in this scope; export parts of it one after another")]
    TooMuch,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A content and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// A manifest that `index.json` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) repository: Repository,
    /// `None`: exported by digest, or something that is attached.
    pub(super) tag: Option<Tag>,
    pub(super) digest: Digest,
    pub(super) media_type: MediaType,
    pub(super) size: u64,
    pub(super) is_attached: bool,
    /// When the tag last moved, in Unix seconds.
    pub(super) moved: u64,
}

/// What a repository, or all of them, cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of all that belongs to it, shared or not.
    pub bytes: u64,
    /// Bytes that no repository before it has brought in.
    pub unique: u64,
    /// Of these, what the far side has.
    pub far: u64,
}

/// Everything that an export takes along.
#[derive(Debug, Default)]
pub struct Plan {
    pub(super) roots: Vec<Root>,
    /// Parents first.
    pub(super) manifests: Vec<Item>,
    /// By first use; without what the far side has.
    pub(super) blobs: Vec<Item>,
    /// Blobs that are left out, since the far side has them.
    pub(super) assumed: BTreeSet<Digest>,
    /// Contents of wanted platforms that are not stored here.
    pub(super) absent: BTreeSet<Digest>,
    pub(super) scope: Scope,
    /// What was wished for and is not stored.
    pub unmet: Vec<String>,
    /// Sizes of each repository, by name.
    pub repositories: BTreeMap<String, Sizes>,
    pub(super) seen: HashSet<Digest>,
    /// Keeps all of it from being evicted as long as the plan lives.
    pub(super) hold: Option<Hold>,
}

impl Plan {
    /// Plans an export of `scope`; what `far` has is left out, manifests excepted.
    pub async fn make(store: &Store, scope: Scope, far: &HashSet<Digest>) -> Result<Self, PlanError> {
        let mut plan = Self { scope, ..Self::default() };
        let mut unmet = Vec::new();
        let wanted = plan.wanted(store, &mut unmet).await?;
        plan.unmet = unmet;
        if wanted.is_empty() {
            return Err(PlanError::Empty);
        }
        if plan.scope.bare_tags && wanted.len() > 1 {
            return Err(PlanError::SeveralRepositories(wanted.len()));
        }
        for (repository, roots) in &wanted {
            let links = store.links(repository).await?;
            Walk::new(store, &mut plan, repository, far).run(roots, &links).await?;
        }
        plan.hold = Some(store.hold(plan.seen.iter().copied()));
        Ok(plan)
    }

    /// Bytes of everything, of what is written, and of what the far side has.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let sum = |of: fn(&Sizes) -> u64| self.repositories.values().map(of).sum();
        Sizes { bytes: sum(|sizes| sizes.bytes), unique: sum(|sizes| sizes.unique), far: sum(|sizes| sizes.far) }
    }

    /// Contents of wanted platforms that are not stored here.
    #[must_use]
    pub fn absent(&self) -> &BTreeSet<Digest> {
        &self.absent
    }

    /// What is wanted by name, per repository: tags, and manifests without one.
    async fn wanted(
        &self,
        store: &Store,
        unmet: &mut Vec<String>,
    ) -> Result<BTreeMap<Repository, Vec<(Option<Tag>, Digest)>>, PlanError> {
        let mut wanted: BTreeMap<Repository, Vec<(Option<Tag>, Digest)>> = BTreeMap::new();
        if self.scope.all || self.scope.used_within_s.is_some() {
            let since =
                self.scope.used_within_s.and_then(|within| SystemTime::now().checked_sub(Duration::from_secs(within)));
            for reference in store.references().await? {
                if since.is_none_or(|since| reference.last_use >= since) && reference.media_type.is_some() {
                    let of_repository = wanted.entry(reference.repository).or_default();
                    of_repository.push((Some(reference.tag), reference.digest));
                }
            }
        }
        for text in &self.scope.references {
            let reference = Wanted::parse(text).ok_or_else(|| PlanError::Reference(text.clone()))?;
            let (repository, roots) = named(store, reference).await?;
            if roots.is_empty() {
                return Err(PlanError::Absent(text.clone()));
            }
            wanted.entry(repository).or_default().extend(roots);
        }
        for text in &self.scope.wished {
            let reference = Wanted::parse(text).ok_or_else(|| PlanError::Reference(text.clone()))?;
            let (repository, roots) = named(store, reference).await?;
            if roots.is_empty() {
                unmet.push(text.clone());
            } else {
                wanted.entry(repository).or_default().extend(roots);
            }
        }
        for roots in wanted.values_mut() {
            roots.sort_by(|a, b| (&a.0, a.1.to_string()).cmp(&(&b.0, b.1.to_string())));
            roots.dedup();
        }
        Ok(wanted)
    }
}

/// What a reference names here; nothing, if it is not stored.
async fn named(store: &Store, wanted: Wanted) -> Result<(Repository, Vec<(Option<Tag>, Digest)>), StoreError> {
    Ok(match wanted {
        Wanted::Repository(repository) => {
            let tags = store.links(&repository).await?.tags;
            (repository, tags.into_iter().map(|(tag, digest)| (Some(tag), digest)).collect())
        }
        Wanted::Tag(repository, tag) => {
            let link = store.tag(&repository, &tag).await?;
            (repository, link.map(|link| (Some(tag), link.digest)).into_iter().collect())
        }
        Wanted::Manifest(repository, digest) => {
            let is_here = store.manifest_type(&repository, &digest).await?.is_some();
            // A blob goes along with what refers to it: no layout names a blob alone.
            let roots = if is_here { vec![digest] } else { referring(store, &repository, digest).await? };
            (repository, roots.into_iter().map(|digest| (None, digest)).collect())
        }
    })
}

/// The repository's manifests that have the blob, which is stored.
async fn referring(store: &Store, repository: &Repository, digest: Digest) -> Result<Vec<Digest>, StoreError> {
    if store.length(&digest).is_none() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for manifest in store.links(repository).await?.manifests {
        let content = store.peek_small(&manifest).await?.and_then(|content| Manifest::parse(&content));
        if content.is_some_and(|content| content.blobs.iter().any(|blob| blob.digest == digest)) {
            found.push(manifest);
        }
    }
    Ok(found)
}

/// The way through the manifests of one repository.
struct Walk<'a> {
    store: &'a Store,
    plan: &'a mut Plan,
    repository: &'a Repository,
    far: &'a HashSet<Digest>,
    platforms: Platforms,
    sizes: Sizes,
    /// What this repository has brought in itself.
    own: HashSet<Digest>,
}

impl<'a> Walk<'a> {
    fn new(store: &'a Store, plan: &'a mut Plan, repository: &'a Repository, far: &'a HashSet<Digest>) -> Self {
        let platforms = Platforms::of(&plan.scope.platforms);
        Self { store, plan, repository, far, platforms, sizes: Sizes::default(), own: HashSet::new() }
    }

    async fn run(mut self, roots: &[(Option<Tag>, Digest)], links: &RepositoryLinks) -> Result<(), PlanError> {
        let attached = if self.plan.scope.referrers { self.attached(links).await? } else { HashMap::new() };
        for (tag, digest) in roots {
            let Some(root) = self.root(tag.clone(), *digest, false).await? else {
                return Err(PlanError::Absent(format!("{}@{digest}", self.repository)));
            };
            self.plan.roots.push(root);
            self.take(*digest).await?;
        }
        self.take_attached(&attached).await?;
        self.plan.repositories.insert(self.repository.to_string(), self.sizes);
        Ok(())
    }

    async fn root(&self, tag: Option<Tag>, digest: Digest, is_attached: bool) -> Result<Option<Root>, StoreError> {
        let repository = self.repository.clone();
        let media_type = self.store.manifest_type(&repository, &digest).await?;
        let Some((media_type, size)) = media_type.zip(self.store.length(&digest)) else { return Ok(None) };
        let moved = match &tag {
            Some(tag) => self.store.tag_moved(&repository, tag).await?,
            None => None,
        };
        let moved = moved.and_then(|moved| moved.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs());
        Ok(Some(Root { repository, tag, digest, media_type, size, is_attached, moved }))
    }

    /// The repository's manifests that are attached to others, by what they are attached to; tags that stand for that included
    /// (`sha256-<hex>`, `sha256-<hex>.sig`), since older registries and tools know no other way.
    async fn attached(
        &self,
        links: &RepositoryLinks,
    ) -> Result<HashMap<Digest, Vec<(Option<Tag>, Digest)>>, StoreError> {
        let mut attached: HashMap<Digest, Vec<(Option<Tag>, Digest)>> = HashMap::new();
        for digest in &links.manifests {
            if let Some(subject) = self.read(digest).await?.and_then(|manifest| manifest.subject) {
                attached.entry(subject).or_default().push((None, *digest));
            }
        }
        for (tag, digest) in &links.tags {
            if let Some(subject) = subject_of_tag(tag) {
                attached.entry(subject).or_default().push((Some(tag.clone()), *digest));
            }
        }
        for of_one in attached.values_mut() {
            of_one.sort_by_key(|(tag, digest)| (tag.clone(), digest.to_string()));
        }
        Ok(attached)
    }

    /// Takes what is attached to anything that is taken, and to that again.
    async fn take_attached(&mut self, attached: &HashMap<Digest, Vec<(Option<Tag>, Digest)>>) -> Result<(), PlanError> {
        let mut named: HashSet<(Option<Tag>, Digest)> = HashSet::new();
        let mut at = 0;
        // The list of manifests grows while it is walked; each is looked at once.
        while let Some(item) = self.plan.manifests.get(at).copied() {
            at += 1;
            for (tag, digest) in attached.get(&item.digest).into_iter().flatten() {
                if !self.own.contains(&item.digest) || !named.insert((tag.clone(), *digest)) {
                    continue;
                }
                if let Some(root) = self.root(tag.clone(), *digest, true).await? {
                    let known = |known: &Root| {
                        known.repository == root.repository && known.digest == root.digest && known.tag == root.tag
                    };
                    if !self.plan.roots.iter().any(known) {
                        self.plan.roots.push(root);
                    }
                    self.take(*digest).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes a manifest and all that it names: level by level, so that no chain of indexes is too long for a stack.
    async fn take(&mut self, digest: Digest) -> Result<(), PlanError> {
        let mut level = vec![(digest, true)];
        for _ in 0..=MAX_DEPTH {
            let mut below = Vec::new();
            for (digest, whole) in level {
                let Some(manifest) = self.take_manifest(digest).await? else { continue };
                for blob in manifest.blobs.iter().filter(|_| whole) {
                    // What other places give (`urls`) a registry need not have.
                    if !blob.has_urls || self.store.length(&blob.digest).is_some() {
                        self.take_blob(blob.digest);
                    }
                }
                for child in &manifest.manifests {
                    below.push((child.digest, whole && self.platforms.want(child.platform.as_deref())));
                }
            }
            level = below;
        }
        if self.plan.seen.len() > MOST_ITEMS { Err(PlanError::TooMuch) } else { Ok(()) }
    }

    async fn take_manifest(&mut self, digest: Digest) -> Result<Option<Manifest>, StoreError> {
        let Some((size, manifest)) = self.store.length(&digest).zip(self.read(&digest).await?) else {
            self.plan.absent.insert(digest);
            return Ok(None);
        };
        if self.own.insert(digest) {
            self.sizes.bytes += size;
            if self.plan.seen.insert(digest) {
                // Manifests go along whatever the far side has: without them a delta is no layout.
                self.sizes.unique += size;
                self.plan.manifests.push(Item { digest, size });
            }
        }
        Ok(Some(manifest))
    }

    fn take_blob(&mut self, digest: Digest) {
        let size = self.store.length(&digest);
        let is_far = self.far.contains(&digest);
        if size.is_none() && !is_far {
            self.plan.absent.insert(digest);
            return;
        }
        let size = size.unwrap_or_default();
        if !self.own.insert(digest) {
            return;
        }
        self.sizes.bytes += size;
        if !self.plan.seen.insert(digest) {
            return;
        }
        self.sizes.unique += size;
        if is_far {
            self.sizes.far += size;
            self.plan.assumed.insert(digest);
        } else {
            self.plan.blobs.push(Item { digest, size });
        }
    }

    async fn read(&self, digest: &Digest) -> Result<Option<Manifest>, StoreError> {
        let content = self.store.peek_small(digest).await?;
        Ok(content.and_then(|content| Manifest::parse(&content)))
    }
}

/// The manifest that a tag of the referrers tag schema, or one of cosign's, is about.
fn subject_of_tag(tag: &Tag) -> Option<Digest> {
    let (algorithm, rest) = tag.as_str().split_once('-')?;
    let hex = rest.split_once('.').map_or(rest, |(hex, _)| hex);
    format!("{algorithm}:{hex}").parse().ok()
}
