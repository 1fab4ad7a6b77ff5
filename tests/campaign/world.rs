//! The registries, and all that they ever held: what a client may be given.

use super::harness::simulator::{Options, samples};
use super::harness::{Acr, Dice};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

pub const REGISTRIES: usize = 6;
const REPOSITORIES: usize = 3;
const USER: (&str, &str) = ("ci", "a password");

/// One registry of a round.
pub struct Registry {
    pub acr: Acr,
    pub alias: String,
    /// Nobody makes it fail in this round: nothing excuses an answer that is broken or refused.
    pub is_well: bool,
    tags: Mutex<Vec<Tag>>,
    /// What was given to a client whole.
    served: Mutex<HashSet<String>>,
}

/// A tag that moves.
#[derive(Clone, Debug)]
pub struct Tag {
    pub repository: String,
    /// Every manifest that it ever named, the last one now.
    pub versions: Vec<Version>,
}

#[derive(Clone, Debug)]
pub struct Version {
    pub manifest: String,
    pub layers: Vec<String>,
}

/// All registries, and every content by its digest.
pub struct World {
    pub registries: Vec<Registry>,
    contents: RwLock<HashMap<String, Bytes>>,
}

impl World {
    /// The first `well` registries will not be made to fail.
    pub async fn new(well: usize, dice: &mut Dice) -> Self {
        let mut registries = Vec::new();
        for number in 0..REGISTRIES {
            let mut options = Options::private(USER.0, USER.1);
            // Tokens expire while the round goes on.
            options.knobs.access_life_s = 4;
            let acr = Acr::start(options).await;
            registries.push(Registry {
                acr,
                alias: format!("r{number}"),
                is_well: number < well,
                tags: Mutex::default(),
                served: Mutex::default(),
            });
        }
        let world = Self { registries, contents: RwLock::default() };
        for registry in 0..REGISTRIES {
            for number in 0..REPOSITORIES {
                let tag = Tag { repository: format!("team/app-{number}"), versions: Vec::new() };
                world.registries[registry].tags().push(tag);
                world.publish(registry, number, dice);
            }
        }
        world
    }

    /// Moves a tag to a new manifest: one layer stays, two are new.
    #[allow(clippy::cast_possible_truncation, reason = "small sizes")]
    pub fn publish(&self, registry: usize, number: usize, dice: &mut Dice) {
        let registry = &self.registries[registry];
        let repository = registry.tags()[number].repository.clone();
        let octets = "application/octet-stream";
        let first = registry.tags()[number].versions.first().map(|version| version.layers[0].clone());
        let kept = first.and_then(|digest| self.content(&digest));
        let kept = kept.unwrap_or_else(|| samples::incompressible(dice.next(), 3 << 20));
        let small = samples::incompressible(dice.next(), 1 + dice.below(60 << 10) as usize);
        let large = samples::incompressible(dice.next(), (70 << 10) + dice.below(1 << 20) as usize);
        let layers = [("kept", octets, kept), ("small", octets, small), ("large", octets, large)];
        // Known before it can be seen.
        let mut tags = registry.tags();
        let artifact = registry.acr.push_artifact(&repository, "v1", &layers);
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        contents.insert(artifact.digest.clone(), artifact.manifest.clone());
        for (digest, (_, _, bytes)) in artifact.layers.iter().zip(layers) {
            contents.insert(digest.clone(), bytes);
        }
        tags[number].versions.push(Version { manifest: artifact.digest, layers: artifact.layers });
    }

    pub fn content(&self, digest: &str) -> Option<Bytes> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// The file that a larder in front of all of them is started with.
    pub fn config(&self, password_file: &str) -> String {
        let head = "[server]\ndrain = \"2s\"\n[store]\nsync = \"commit\"\nmin_free = \"0B\"\n";
        let upstream = |registry: &Registry| {
            format!(
                "[[upstream]]\nname = \"{0}.azurecr.io\"\naliases = [\"{0}\"]\nurl = \"{1}\"\n\
                 connect_timeout = \"1s\"\nfirst_byte_timeout = \"1s\"\nstall_timeout = \"1s\"\n\
                 [upstream.credential]\nkind = \"password\"\nusername = \"{2}\"\npassword_file = \"{password_file}\"\n\
                 [upstream.freshness]\ntag_ttl = \"50ms\"\nrevalidate_wait = \"300ms\"\nnegative_ttl = \"1s\"\n",
                registry.alias,
                registry.acr.url(),
                USER.0
            )
        };
        head.to_owned() + &self.registries.iter().map(upstream).collect::<String>()
    }

    pub fn password() -> &'static str {
        USER.1
    }
}

impl Registry {
    fn tags(&self) -> MutexGuard<'_, Vec<Tag>> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn tag_count(&self) -> usize {
        self.tags().len()
    }

    /// The tag as it is now.
    pub fn tag(&self, number: usize) -> Tag {
        self.tags()[number].clone()
    }

    pub fn has_served(&self, target: &str) -> bool {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).contains(target)
    }

    pub fn note_served(&self, target: &str) {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).insert(target.to_owned());
    }

    pub fn target(&self, repository: &str, kind: &str, reference: &str) -> String {
        format!("/v2/{}/{repository}/{kind}/{reference}", self.alias)
    }
}
