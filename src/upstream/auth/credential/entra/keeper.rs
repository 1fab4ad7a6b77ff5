use super::door::Door;
use super::pause::Pauses;
use super::remedy::at_registry;
use super::{About, IdentitySource, Minted};
use crate::upstream::auth::login::{Credential, Grant, Login, Pending};
use crate::upstream::auth::secret::Secret;
use crate::upstream::error::{ErrorKind, Failure};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// How long one try may take, with all the patience that a metadata service wants.
const WHOLE: Duration = Duration::from_secs(75);
/// How long a request waits for an identity that is not there yet. The attempt continues after that.
const WAIT: Duration = Duration::from_secs(30);
/// A token that the registry refuses is asked for anew, but not more often than this.
const AGAIN: Duration = Duration::from_secs(60);
/// A file that fails is looked at again after this: it may have been replaced.
const LOOK: Duration = Duration::from_secs(1);
/// What is left of a token's life when it is no longer used, or a tenth of the life if that is less.
const MARGIN: Duration = Duration::from_secs(30);

/// Keeps an identity's token fresh: asks on a task of its own from the first need on, at 80 % of a token's life, and in growing
/// pauses while that fails. Whoever needs the token gets the one that is there.
pub(in crate::upstream) struct Keeper {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    source: Box<dyn IdentitySource>,
    about: About,
    door: Arc<Door>,
    state: watch::Sender<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    token: Option<Held>,
    failed: Option<Failed>,
    /// A try is under way, or about to begin.
    trying: bool,
}

struct Held {
    secret: Secret,
    asked: Instant,
    dead: Instant,
}

struct Failed {
    failure: Failure,
    at: Instant,
    mark: Mark,
}

/// What the source's files held.
type Mark = Option<[u8; 32]>;

impl State {
    fn alive(&self) -> Option<&Held> {
        self.token.as_ref().filter(|held| Instant::now() < held.dead)
    }
}

impl Keeper {
    pub(super) fn new(source: impl IdentitySource + 'static, about: About, door: Arc<Door>) -> Self {
        let (state, wake) = (watch::Sender::default(), Notify::new());
        let shared = Arc::new(Shared { source: Box::new(source), about, door, state, wake });
        Self { shared, task: Mutex::default() }
    }

    fn begin(&self) {
        let mut task = self.task.lock();
        if task.is_none() {
            self.shared.state.send_modify(|state| state.trying = true);
            *task = Some(tokio::spawn(Arc::clone(&self.shared).run()));
        }
    }

    /// Whether a try is under way and there is nothing to be had yet.
    pub(in crate::upstream) fn is_pending(&self) -> bool {
        let state = self.shared.state.borrow();
        state.trying && state.alive().is_none()
    }

    async fn get(&self) -> Result<Login, Failure> {
        self.begin();
        let shared = &self.shared;
        let mut changes = shared.state.subscribe();
        let failed = {
            let state = changes.borrow();
            if let Some(held) = state.alive() {
                return Ok(shared.material(held));
            }
            let failed = state.failed.as_ref().filter(|_| !state.trying);
            failed.map(|failed| (failed.failure.clone(), failed.at, failed.mark))
        };
        if let Some((failure, at, mark)) = failed
            && (at.elapsed() < LOOK || shared.mark().await == mark)
        {
            return Err(failure);
        }
        shared.hurry();
        let ended = changes.wait_for(|state| state.alive().is_some() || !state.trying);
        let Ok(Ok(state)) = timeout(WAIT, ended).await else {
            let (identity, limit) = (&shared.about.identity, WAIT.as_secs());
            let reason =
                format!("no token for {identity} ({}) within {limit} s; larder goes on asking", shared.about.from);
            return Err(Failure::new(ErrorKind::Timeout, reason));
        };
        match (state.alive(), &state.failed) {
            (Some(held), _) => Ok(shared.material(held)),
            (None, Some(failed)) => Err(failed.failure.clone()),
            (None, None) => Err(Failure::new(ErrorKind::Timeout, "the identity's token died while it was waited for")),
        }
    }
}

impl Shared {
    async fn run(self: Arc<Self>) {
        let mut pauses = Pauses::default();
        loop {
            let mark = self.mark().await;
            let outcome = timeout(WHOLE, self.source.mint()).await.unwrap_or_else(|_| Err(self.given_up()));
            self.count(&outcome);
            let pause = match outcome {
                Ok(minted) => {
                    pauses = Pauses::default();
                    self.keep(minted)
                }
                Err(failure) => {
                    let wanted = match failure.kind {
                        ErrorKind::Throttled { retry_after } => retry_after,
                        _ => None,
                    };
                    self.fail(&failure, mark);
                    pauses.next(wanted)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => self.state.send_modify(|state| state.trying = true),
                () = self.wake.notified() => {}
            }
        }
    }

    /// Has a try begin now, unless one is under way.
    fn hurry(&self) {
        let begins = self.state.send_if_modified(|state| !std::mem::replace(&mut state.trying, true));
        if begins {
            self.wake.notify_one();
        }
    }

    /// Keeps the token and says how long to wait for the next.
    fn keep(&self, minted: Minted) -> Duration {
        let Minted { secret, life, asked } = minted;
        let dead = asked + life.saturating_sub(MARGIN.min(life / 10));
        let renew = asked + life * 4 / 5;
        let mut had_failed = false;
        self.state.send_modify(|state| {
            had_failed = state.failed.take().is_some();
            *state = State { token: Some(Held { secret, asked, dead }), failed: None, trying: false };
        });
        let (upstream, identity) = (self.door.name.as_str(), &self.about.identity);
        if had_failed {
            tracing::info!(upstream.name = upstream, identity, "the identity's tokens are to be had again");
        }
        // A life that is almost nothing must not become a storm.
        renew.saturating_duration_since(Instant::now()).max(Duration::from_millis(200))
    }

    fn fail(&self, failure: &Failure, mark: Mark) {
        let mut left = None;
        let mut is_new = true;
        self.state.send_modify(|state| {
            is_new = state.failed.as_ref().is_none_or(|failed| failed.failure.reason != failure.reason);
            left = state.alive().map(|held| held.dead.saturating_duration_since(Instant::now()).as_secs());
            state.failed = Some(Failed { failure: failure.clone(), at: Instant::now(), mark });
            state.trying = false;
        });
        if is_new {
            let (upstream, identity, problem) = (self.door.name.as_str(), &self.about.identity, &failure.reason);
            let until = left.map(|left| format!("; the token at hand is good for {left} s more")).unwrap_or_default();
            tracing::warn!(upstream.name = upstream, identity, "no new token: {problem}{until}");
        }
    }

    fn given_up(&self) -> Failure {
        let limit = WHOLE.as_secs();
        let reason = format!("no token for {} ({}) within {limit} s", self.about.identity, self.about.from);
        Failure::new(ErrorKind::Timeout, reason)
    }

    fn count(&self, outcome: &Result<Minted, Failure>) {
        let result = match outcome {
            Ok(_) => "ok",
            Err(failure) if failure.is_credential() => "refused",
            Err(_) => "error",
        };
        let labels = [self.door.name.as_str(), self.about.kind, result];
        self.door.metrics.token_requests.with_label_values(&labels).inc();
    }

    /// What the source's files hold now; nothing of it can be read from the mark.
    async fn mark(&self) -> Mark {
        let files = self.about.files.clone();
        if files.is_empty() {
            return None;
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut hash = Sha256::new();
            for file in files {
                match crate::config::read_private(&file) {
                    Ok(text) => hash.update(text.as_bytes()),
                    Err(error) => hash.update(error.to_string()),
                }
            }
            hash.finalize().into()
        });
        read.await.ok()
    }

    fn material(&self, held: &Held) -> Login {
        let About { identity, from, tenant, .. } = &self.about;
        Login {
            grant: Grant::Entra { token: held.secret.clone(), tenant: tenant.clone() },
            identity: identity.clone(),
            source: from.clone(),
            remedy: at_registry(tenant.as_deref()),
            // A token's end is not the login's: the next one is asked for in time.
            expires: None,
        }
    }
}

impl Credential for Keeper {
    fn material(&self) -> Pending<'_> {
        Box::pin(self.get())
    }

    fn refused(&self) {
        let shared = &self.shared;
        let is_old = shared.state.borrow().token.as_ref().is_some_and(|held| held.asked.elapsed() >= AGAIN);
        if is_old {
            shared.state.send_modify(|state| state.token = None);
            shared.hurry();
        }
    }

    fn keeps(&self) -> bool {
        true
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::auth::credential::entra::Minting;
    use crate::upstream::testing::environment;
    use crate::upstream::transport::resolve::Resolver;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// What a source does at its nth try.
    type Script = fn(usize) -> Option<Result<Duration, Failure>>;

    struct Scripted(Arc<AtomicUsize>, Script);

    impl IdentitySource for Scripted {
        fn mint(&self) -> Minting<'_> {
            Box::pin(async {
                let number = self.0.fetch_add(1, Ordering::SeqCst);
                let asked = Instant::now();
                match (self.1)(number) {
                    Some(Ok(life)) => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        Ok(Minted { secret: Secret::new(format!("t{number}")), life, asked })
                    }
                    Some(Err(failure)) => Err(failure),
                    None => std::future::pending().await,
                }
            })
        }
    }

    fn keeper(files: Vec<PathBuf>, script: Script) -> (Arc<Keeper>, Arc<AtomicUsize>) {
        let metrics = Arc::new(crate::telemetry::Metrics::new());
        let name = crate::oci::Registry::new("test.registry");
        let own =
            crate::upstream::transport::origin::Origin::of(&http::Uri::from_static("https://test.registry")).unwrap();
        let door = Door::new(&name, &own, None, &environment(), &Resolver::of_system(), metrics).unwrap();
        let about = About { kind: "entra-secret", identity: "app".into(), from: "Entra".into(), tenant: None, files };
        let tries = Arc::new(AtomicUsize::new(0));
        (Arc::new(Keeper::new(Scripted(Arc::clone(&tries), script), about, door)), tries)
    }

    async fn token(keeper: &Keeper) -> String {
        match keeper.get().await.unwrap().grant {
            Grant::Entra { token, .. } => token.expose().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_serves_until_its_margin_and_is_renewed_by_one() {
        // The first lives, the renewal fails for ever.
        let script: Script = |number| match number {
            0 => Some(Ok(Duration::from_secs(1000))),
            _ => Some(Err(Failure::new(ErrorKind::Timeout, "slow"))),
        };
        let (keeper, tries) = keeper(Vec::new(), script);
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let keeper = Arc::clone(&keeper);
                tokio::spawn(async move { token(&keeper).await })
            })
            .collect();
        for waiter in waiting {
            assert_eq!(waiter.await.unwrap(), "t0");
        }
        assert_eq!(tries.load(Ordering::SeqCst), 1);
        tokio::time::sleep(Duration::from_secs(799)).await;
        assert_eq!((token(&keeper).await.as_str(), tries.load(Ordering::SeqCst)), ("t0", 1));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(tries.load(Ordering::SeqCst) >= 2, "asked for at four fifths");
        tokio::time::sleep(Duration::from_secs(168)).await;
        assert_eq!(token(&keeper).await, "t0", "until 30 s before its end");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(keeper.get().await.unwrap_err().kind, ErrorKind::Timeout);
        let tries = tries.load(Ordering::SeqCst);
        assert!((7..=12).contains(&tries), "1, 2, 4 … 60 s: {tries}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_and_a_wait_for_it_have_their_ends() {
        let (keeper, _) = keeper(Vec::new(), |_| None);
        let begun = Instant::now();
        let failure = keeper.get().await.unwrap_err();
        assert_eq!((failure.kind, begun.elapsed().as_secs()), (ErrorKind::Timeout, 30));
        tokio::time::sleep(Duration::from_millis(45_200)).await;
        let again = Instant::now();
        let failure = keeper.get().await.unwrap_err();
        assert!(failure.reason.contains("75 s") && again.elapsed() < LOOK, "{}", failure.reason);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_tried_at_once_and_a_refused_token_once_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "old").unwrap();
        let script: Script = |number| match number {
            0 => Some(Err(Failure::credential("app", "wrong", "write another"))),
            _ => Some(Ok(Duration::from_secs(3600))),
        };
        let (keeper, tries) = keeper(vec![file.clone()], script);
        for _ in 0..10 {
            assert!(keeper.get().await.unwrap_err().is_credential());
        }
        assert_eq!(tries.load(Ordering::SeqCst), 1);
        std::fs::write(&file, "new").unwrap();
        assert!(keeper.get().await.unwrap_err().is_credential(), "looked at again after a second, not before");
        // Before the pause of about a second is over the loop would not have tried by itself.
        keeper.shared.state.send_modify(|state| {
            if let Some(failed) = &mut state.failed {
                failed.at -= LOOK;
            }
        });
        assert_eq!(token(&keeper).await, "t1");
        keeper.refused();
        assert_eq!(token(&keeper).await, "t1", "just made: another one would be the same");
        tokio::time::sleep(AGAIN).await;
        keeper.refused();
        assert_eq!(token(&keeper).await, "t2");
    }
}
