//! The registry, what it holds, and larder in front of it.

use super::harness::simulator::{Options, samples};
use super::harness::{Acr, Dice, Process, Setup, UPSTREAM};
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};

const REPOSITORIES: usize = 20;
pub const TAGS: usize = 15;
const SMALL: usize = 10;
/// Bytes of the layer of each artifact that is no small one.
const LARGE: usize = 128 << 10;
/// Less than all that there is, and than a short run brings: something always has to go.
const STORE: (&str, &str) = ("16MiB", "40MiB");
/// A run of so many requests is a long one.
const LONG: u64 = 100_000;
const USER: (&str, &str) = ("ci", "a password");
const OCTETS: &str = "application/octet-stream";

pub struct Site {
    acr: Acr,
    setup: Setup,
    pub repositories: Vec<Repository>,
    moves: AtomicUsize,
}

/// A repository as it was at first: its tags move, and what was there stays.
pub struct Repository {
    pub name: String,
    pub manifests: Vec<String>,
    pub small: Vec<(String, Bytes)>,
    pub large: Vec<(String, Bytes)>,
}

impl Site {
    pub async fn new(requests: u64, dice: &mut Dice) -> Self {
        let mut options = Options::private(USER.0, USER.1);
        // Tokens expire all the time.
        options.knobs.access_life_s = 5;
        let acr = Acr::start(options).await;
        let repositories = (0..REPOSITORIES).map(|number| Repository::push(&acr, number, dice)).collect();
        let setup = Setup::of(&acr);
        let password = setup.file("password", USER.1);
        let store = if requests < LONG { STORE.0 } else { STORE.1 };
        let config = format!(
            "[server.limits]\ntokens = 2000\nnegative_entries = 2000\nlist_memory = \"1MiB\"\nmanifest_memory = \"1MiB\"\n\
             [store]\nsync = \"none\"\nmin_free = \"0B\"\nscrub_rate = \"256KiB\"\nmax_size = \"{store}\"\n\
             [[upstream]]\nname = \"{UPSTREAM}\"\ndefault = true\nurl = \"{}\"\n\
             [upstream.credential]\nkind = \"password\"\nusername = \"{}\"\npassword_file = \"{}\"\n\
             [upstream.freshness]\ntag_ttl = \"2s\"\n",
            acr.url(),
            USER.0,
            password.display()
        );
        setup.file("larder.toml", &config);
        Self { acr, setup, repositories, moves: AtomicUsize::new(0) }
    }

    pub async fn start(&self) -> Process {
        let config = self.setup.folder.path().join("larder.toml");
        Process::start(&self.setup, &["--allow", "push", "--config", config.to_str().unwrap()]).await
    }

    /// A tag names another manifest from now on.
    pub fn move_a_tag(&self, dice: &mut Dice) {
        let number = self.moves.fetch_add(1, Ordering::Relaxed);
        let repository = dice.pick(&self.repositories);
        let content = Bytes::from(format!("version {number}"));
        self.acr.push_artifact(&repository.name, &format!("v{}", number % TAGS), &[("version", OCTETS, content)]);
    }

    /// The registry does not grow with what it was asked.
    pub fn forget_log(&self) {
        assert_eq!(self.acr.violations(), Vec::<String>::new());
        self.acr.clear_log();
    }
}

impl Repository {
    #[allow(clippy::cast_possible_truncation, reason = "small sizes")]
    fn push(acr: &Acr, number: usize, dice: &mut Dice) -> Self {
        let mut repository =
            Self { name: format!("farm/app-{number}"), manifests: vec![], small: vec![], large: vec![] };
        for tag in 0..TAGS {
            let mut layers: Vec<_> = (0..SMALL)
                .map(|_| samples::incompressible(dice.next(), 512 + dice.below(7 << 10) as usize))
                .map(|content| ("small", OCTETS, content))
                .collect();
            layers.push(("large", OCTETS, samples::incompressible(dice.next(), LARGE)));
            let artifact = acr.push_artifact(&repository.name, &format!("v{tag}"), &layers);
            repository.manifests.push(artifact.digest);
            let mut blobs: Vec<_> = artifact.layers.into_iter().zip(layers.into_iter().map(|layer| layer.2)).collect();
            repository.large.extend(blobs.pop());
            repository.small.append(&mut blobs);
        }
        repository
    }
}
