use super::engine::Engine;
use super::{COMPLETE, Key, Value, decode, encode, key};
use crate::oci::{Digest, Repository};
use crate::store::disk::Disk;
use crate::store::files::layout;
use crate::telemetry::Metrics;
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::time::Instant;

/// The engine's and the format's version, as the folder's name: another one is not looked at.
const FOLDER: &str = "sled-0.34-1";
/// Commands waiting; beyond that an entry is not kept, which costs time later and nothing else.
const QUEUE: usize = 1024;
/// How long a request waits for an answer before it looks into the files.
const ANSWER_WAIT: Duration = Duration::from_millis(50);
/// How long one call, or opening, may take before the engine is given up.
const STALL: Duration = Duration::from_secs(30);
/// How long after its start an engine that has ended is tried again: not at every tick on a disk that takes no writes.
const RETRY: Duration = Duration::from_secs(60);
/// Entries to one batch.
const BATCH: usize = 512;
/// sled does not shrink: a larger folder is made anew from the files.
const LARGEST: u64 = 512 << 20;
/// The same in a small store, as a part of its limit, …
const LARGEST_SHARE: u64 = 8;
/// … but never less, which is what a small index grows to.
const LEAST: u64 = 4 << 20;
/// How often it is measured.
const MEASURE: Duration = Duration::from_secs(1);
/// How long closing waits for the flush.
const CLOSING: Duration = Duration::from_secs(10);

enum Command {
    Get(Box<Key>, mpsc::SyncSender<Option<Digest>>),
    Put(Vec<(Key, Value)>),
    /// All entries of a rebuild have been put.
    Complete,
    Close(mpsc::SyncSender<()>),
}

/// The index, or nothing on a simulated disk.
pub(crate) struct Index(Option<Guard>);

struct Guard {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    metrics: Arc<Metrics>,
    runner: Mutex<Runner>,
}

/// The thread that has the engine open, as others see it.
struct Runner {
    commands: mpsc::SyncSender<Command>,
    health: Arc<Health>,
}

struct Health {
    started: Instant,
    /// Milliseconds after `started` at which the call under way began, plus one; 0 for none.
    busy_since: AtomicU64,
    /// Open and serving. Before and after, no request waits for an answer.
    serving: AtomicBool,
    incomplete: AtomicBool,
    bytes: AtomicU64,
    /// Bytes that it may grow to.
    largest: u64,
    /// The thread has ended, for whatever reason.
    ended: AtomicBool,
    /// The thread has been given up: what it still does must not touch the folder.
    abandoned: AtomicBool,
}

impl Index {
    /// The index of a store that may take `limit` bytes.
    pub(crate) fn start(disk: &Arc<dyn Disk>, metrics: &Arc<Metrics>, limit: u64) -> Self {
        let Some(path) = disk.real_path(&folder()) else { return Self(None) };
        let (disk, metrics) = (Arc::clone(disk), Arc::clone(metrics));
        let largest = (limit / LARGEST_SHARE).clamp(LEAST, LARGEST);
        let runner = Mutex::new(Runner::start(&disk, &path, &metrics, largest));
        Self(Some(Guard { disk, path, metrics, runner }))
    }

    /// A manifest that may name the blob.
    pub(crate) fn get(&self, repository: &Repository, digest: &Digest) -> Option<Digest> {
        if !self.0.as_ref()?.runner.lock().health.answers() {
            return None;
        }
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Command::Get(Box::new(key(repository, digest)), reply)).ok()?;
        answer.recv_timeout(ANSWER_WAIT).ok().flatten()
    }

    /// Remembers that `manifest` names `children`. Kept if there is room in the queue.
    pub(crate) fn put(&self, repository: &Repository, children: &[Digest], manifest: &Digest) {
        for command in batches(repository, children, manifest) {
            let _ = self.send(command);
        }
    }

    /// The same for a rebuild, which waits for its turn. `false`: the index takes no more.
    pub(crate) fn put_waiting(&self, repository: &Repository, children: &[Digest], manifest: &Digest) -> bool {
        batches(repository, children, manifest).all(|command| self.send_waiting(command))
    }

    pub(crate) fn rebuilt(&self) {
        self.send_waiting(Command::Complete);
    }

    /// Whether it has to be filled from the files.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.0.as_ref().is_some_and(|guard| guard.runner.lock().health.incomplete.load(Ordering::Acquire))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |guard| guard.runner.lock().health.bytes.load(Ordering::Relaxed))
    }

    /// Replaces an engine that hangs or has ended. The upkeep calls it now and then.
    pub(crate) fn watch(&self) {
        let Some(guard) = &self.0 else { return };
        let mut runner = guard.runner.lock();
        let ended = runner.health.ended.load(Ordering::Acquire);
        if ended && runner.health.started.elapsed() <= RETRY || !ended && !runner.health.is_stalled() {
            return;
        }
        runner.health.abandoned.store(true, Ordering::Release);
        // One that has ended has removed its folder itself.
        if !ended {
            discard(&*guard.disk, &guard.metrics, "it does not answer");
        }
        *runner = Runner::start(&guard.disk, &guard.path, &guard.metrics, runner.health.largest);
    }

    /// Flushes and closes it, waiting no longer than a bound.
    pub(crate) fn close(&self) {
        if !self.0.as_ref().is_some_and(|guard| guard.runner.lock().health.serving.load(Ordering::Acquire)) {
            return;
        }
        let (reply, closed) = mpsc::sync_channel(1);
        if self.send(Command::Close(reply)).is_ok() {
            let _ = closed.recv_timeout(CLOSING);
        }
    }

    fn send(&self, command: Command) -> Result<(), mpsc::TrySendError<Command>> {
        match &self.0 {
            Some(guard) => guard.runner.lock().commands.try_send(command),
            None => Err(mpsc::TrySendError::Disconnected(command)),
        }
    }

    fn send_waiting(&self, mut command: Command) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < STALL {
            match self.send(command) {
                Ok(()) => return true,
                Err(mpsc::TrySendError::Full(back)) => command = back,
                Err(mpsc::TrySendError::Disconnected(_)) => return false,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

fn folder() -> PathBuf {
    Path::new(layout::INDEX).join(FOLDER)
}

fn batches<'a>(
    repository: &'a Repository,
    children: &'a [Digest],
    manifest: &'a Digest,
) -> impl Iterator<Item = Command> + 'a {
    let entries = |some: &[Digest]| some.iter().map(|child| (key(repository, child), encode(manifest))).collect();
    children.chunks(BATCH).map(move |some| Command::Put(entries(some)))
}

impl Runner {
    fn start(disk: &Arc<dyn Disk>, path: &Path, metrics: &Arc<Metrics>, largest: u64) -> Self {
        let (commands, queue) = mpsc::sync_channel(QUEUE);
        let health = Arc::new(Health {
            started: Instant::now(),
            busy_since: AtomicU64::new(0),
            serving: AtomicBool::new(false),
            incomplete: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            largest,
            ended: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        });
        let (disk, path, metrics) = (Arc::clone(disk), path.to_owned(), Arc::clone(metrics));
        let theirs = Arc::clone(&health);
        let spawned = std::thread::Builder::new().name("larder-index".into()).spawn(move || {
            run(&*disk, &path, &metrics, &theirs, &queue);
            theirs.ended.store(true, Ordering::Release);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "cannot start the index's thread; the store works without the index");
        }
        Self { commands, health }
    }
}

/// Opens the engine and serves commands; after a failure the folder goes, and it begins anew. One that was made anew and fails soon
/// meets what the next one would, such as a full disk: it is left to [`Index::watch`] to try again.
fn run(disk: &dyn Disk, path: &Path, metrics: &Metrics, health: &Health, queue: &mpsc::Receiver<Command>) {
    let mut is_new = false;
    loop {
        let begun = Instant::now();
        let served = match health.guarded(|| open(path)) {
            Ok(engine) => {
                let served = serve(&engine, health, queue);
                health.serving.store(false, Ordering::Release);
                let _ = health.guarded(move || {
                    drop(engine);
                    Ok(())
                });
                served
            }
            Err(failure) => Err(failure),
        };
        let Err(failure) = served else { return };
        if health.abandoned.load(Ordering::Acquire) {
            return;
        }
        if !discard(disk, metrics, &failure) || is_new && begun.elapsed() < RETRY {
            return;
        }
        is_new = true;
    }
}

fn open(path: &Path) -> Result<Engine, String> {
    let begun = Instant::now();
    loop {
        match Engine::open(path) {
            Err(error) if Engine::is_locked(&error) && begun.elapsed() < Engine::LOCK_WAIT => {
                std::thread::sleep(Duration::from_millis(50));
            }
            other => return other,
        }
    }
}

/// `Ok`: the store has been closed or dropped.
fn serve(engine: &Engine, health: &Health, queue: &mpsc::Receiver<Command>) -> Result<(), String> {
    let complete = health.guarded(|| Ok(engine.get(COMPLETE)?.is_some()))?;
    health.incomplete.store(!complete, Ordering::Release);
    let measure = || {
        let bytes = health.guarded(|| engine.bytes_on_disk())?;
        health.bytes.store(bytes, Ordering::Relaxed);
        if bytes > health.largest { Err("it has grown too large".to_owned()) } else { Ok(Instant::now()) }
    };
    let mut measured = measure()?;
    health.serving.store(true, Ordering::Release);
    loop {
        match queue.recv_timeout(MEASURE) {
            Ok(Command::Get(key, reply)) => {
                let value = health.guarded(|| engine.get(&*key))?;
                let _ = reply.try_send(value.and_then(|value| decode(&value)));
            }
            Ok(Command::Put(entries)) => {
                health.guarded(|| engine.put_many(entries.iter().map(|(key, value)| (&key[..], &value[..]))))?;
            }
            Ok(Command::Complete) => {
                health.guarded(|| {
                    engine.put_many(std::iter::once((COMPLETE, &b"1"[..])))?;
                    engine.flush()
                })?;
                health.incomplete.store(false, Ordering::Release);
            }
            Ok(Command::Close(reply)) => {
                let flushed = health.guarded(|| engine.flush());
                let _ = reply.try_send(());
                return flushed;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if measured.elapsed() >= MEASURE {
            measured = measure()?;
        }
    }
}

/// Removes what cannot be used or has grown too large: kept, it would count against the limit for nothing.
fn discard(disk: &dyn Disk, metrics: &Metrics, reason: &str) -> bool {
    metrics.store_index_rebuilds.with_label_values(&[] as &[&str]).inc();
    // A file in its place is no index either.
    match disk.remove_tree(&folder()).or_else(|_| disk.remove(&folder())) {
        Ok(()) => tracing::warn!(reason, "the index was removed and is made anew from the files; nothing is lost"),
        Err(error) => {
            tracing::warn!(reason, %error, "the index is unusable and cannot be removed; the store works without it");
            return false;
        }
    }
    true
}

impl Health {
    /// Runs a call of the engine, whose panics become errors and whose duration is watched.
    fn guarded<T>(&self, call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.busy_since.store(now.saturating_add(1), Ordering::Release);
        let result = catch_unwind(AssertUnwindSafe(call));
        self.busy_since.store(0, Ordering::Release);
        result.unwrap_or_else(|_| Err("the engine panicked".to_owned()))
    }

    /// Whether a question is likely to be answered at once.
    fn answers(&self) -> bool {
        self.serving.load(Ordering::Acquire) && !self.is_busy_for(ANSWER_WAIT)
    }

    fn is_stalled(&self) -> bool {
        self.is_busy_for(STALL)
    }

    fn is_busy_for(&self, time: Duration) -> bool {
        let since = self.busy_since.load(Ordering::Acquire);
        since > 0 && self.started.elapsed() > Duration::from_millis(since) + time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, Registry};
    use crate::store::disk::RealDisk;

    struct Scene {
        index: Index,
        repository: Repository,
        manifest: Digest,
        /// What an engine that does not answer was asked.
        queue: mpsc::Receiver<Command>,
        folder: tempfile::TempDir,
    }

    /// An index whose engine has begun a call and does not come back.
    fn hung() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(folder.path()));
        let (commands, queue) = mpsc::sync_channel(QUEUE);
        let health = Health {
            started: Instant::now(),
            busy_since: AtomicU64::new(1),
            serving: AtomicBool::new(true),
            incomplete: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            largest: LARGEST,
            ended: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        };
        let (path, metrics) = (disk.real_path(&super::folder()).unwrap(), Arc::new(Metrics::new()));
        std::fs::create_dir_all(&path).unwrap();
        let runner = Mutex::new(Runner { commands, health: Arc::new(health) });
        let repository = Repository { registry: Registry::new("r.example"), name: "a".parse().unwrap() };
        let manifest = Digest::of(Algorithm::Sha256, b"manifest");
        Scene { index: Index(Some(Guard { disk, path, metrics, runner })), repository, manifest, queue, folder }
    }

    impl Scene {
        fn health(&self) -> Arc<Health> {
            Arc::clone(&self.index.0.as_ref().unwrap().runner.lock().health)
        }

        fn is_replaced(&self, by: &Arc<Health>) -> bool {
            self.index.watch();
            !Arc::ptr_eq(&self.health(), by)
        }

        /// Whether a new engine answers, soon.
        fn answers(&self) -> bool {
            for _ in 0..2000 {
                self.index.put(&self.repository, &[self.manifest], &self.manifest);
                if self.index.get(&self.repository, &self.manifest) == Some(self.manifest) {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            false
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_hangs_is_waited_for_once_and_replaced_after_half_a_minute() {
        let scene = hung();
        let old = scene.health();
        assert_eq!(scene.index.get(&scene.repository, &scene.manifest), None);
        tokio::time::advance(ANSWER_WAIT + Duration::from_millis(2)).await;
        assert_eq!(scene.index.get(&scene.repository, &scene.manifest), None);
        assert_eq!(scene.queue.try_iter().count(), 1, "the second one has not asked");
        assert!(!scene.is_replaced(&old));
        tokio::time::advance(STALL).await;
        assert!(scene.is_replaced(&old) && old.abandoned.load(Ordering::Acquire));
        assert!(scene.answers());
        assert!(scene.folder.path().join(super::folder()).exists());
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_has_ended_is_tried_again_after_a_minute() {
        let scene = hung();
        let old = scene.health();
        old.serving.store(false, Ordering::Release);
        old.ended.store(true, Ordering::Release);
        tokio::time::advance(RETRY).await;
        assert!(!scene.is_replaced(&old));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(scene.is_replaced(&old));
        assert!(scene.answers());
    }
}
