//! Real file systems, mounted for the purpose: this needs root. `LARDER_TEST_NO_MOUNT=1` leaves these tests out where there is none.

use super::harness::{Client, Larder, Process, Setup, until, until_async};
use super::{MIB, Registry};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokio::time::Instant;

/// A mounted file system; unmounted when dropped.
struct Mount {
    folder: tempfile::TempDir,
}

/// A frozen file system: whoever writes there hangs in the kernel, and cannot even be killed. It thaws when this is dropped, so
/// this must go before anything that waits for such a process.
struct Frozen(PathBuf);

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// `None`: the person who runs the tests said that nothing can be mounted.
fn mount(arguments: &[&str]) -> Option<Mount> {
    if std::env::var_os("LARDER_TEST_NO_MOUNT").is_some() {
        eprintln!("left out: LARDER_TEST_NO_MOUNT is set");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let mounted = run("mount", &[arguments, &[folder.path().to_str().unwrap()]].concat());
    mounted.unwrap_or_else(|error| {
        panic!("this test mounts a file system, as root; LARDER_TEST_NO_MOUNT=1 leaves it out: {error}")
    });
    Some(Mount { folder })
}

fn tmpfs(size: &str) -> Option<Mount> {
    mount(&["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "larder-test"])
}

/// An ext4 file system in a file of 64 MiB.
fn ext4(options: &str) -> Option<(Mount, tempfile::NamedTempFile)> {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(64 * MIB as u64).unwrap();
    let path = image.path().to_str().unwrap().to_owned();
    run("mkfs.ext4", &["-q", "-F", &path]).expect("Debian's e2fsprogs is here");
    Some((mount(&["-o", &format!("loop,{options}"), &path])?, image))
}

impl Mount {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), self.path().to_str().unwrap()]).unwrap();
    }

    /// Nothing can be found there any more; what is open stays open.
    fn detach(&self) {
        run("umount", &["--lazy", self.path().to_str().unwrap()]).unwrap();
    }

    fn freeze(&self) -> Frozen {
        run("fsfreeze", &["--freeze", self.path().to_str().unwrap()]).unwrap();
        Frozen(self.path().to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = run("fsfreeze", &["--unfreeze", self.0.to_str().unwrap()]);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy", self.path().to_str().unwrap()]);
    }
}

async fn start(registry: &Registry, mount: &Mount) -> Larder {
    let setup = Setup::of(&registry.acr).tag_ttl(Duration::from_secs(3600));
    let larder = setup.with(|settings| settings.store.path = mount.store()).start().await;
    registry.warm_up(larder.client()).await;
    until("the layer is stored", || larder.stores(registry.warm_layer())).await;
    larder
}

async fn says(larder: &Larder, kind: &str) {
    let shown = async || larder.admin_get("/readyz").await.text().contains(&format!("nothing is stored ({kind})"));
    until_async(&format!("the trouble is shown as {kind}"), shown).await;
}

async fn works_again(registry: &Registry, larder: &Larder) {
    until_async("the trouble is over", async || larder.metric("larder_store_writable").await == 1).await;
    until_async("what is pulled is stored again", async || {
        registry.passes_through(larder.client()).await;
        larder.stores(registry.cold_layer())
    })
    .await;
}

/// Somebody else fills the disk under a running download. Whatever is stored may go to make room; no pull fails.
#[tokio::test]
async fn a_file_system_that_fills_up_fails_no_pull() {
    let Some(mount) = tmpfs("32m") else { return };
    let registry = Registry::start().await;
    let larder = start(&registry, &mount).await;
    let other = mount.path().join("somebody-elses");
    let fill_up = || {
        let _ = std::fs::write(&other, vec![1; 40 * MIB]);
    };
    registry.in_the_middle(larder.client(), async || fill_up()).await;
    fill_up();
    for _ in 0..3 {
        registry.warm_up(larder.client()).await;
        registry.passes_through(larder.client()).await;
    }
    std::fs::remove_file(&other).unwrap();
    works_again(&registry, &larder).await;
}

/// A file system that has bytes free, but no room for another file.
#[tokio::test]
async fn a_file_system_without_room_for_more_files_keeps_nothing_out_for_ever() {
    let Some(mount) = tmpfs("64m,nr_inodes=130") else { return };
    let registry = Registry::start().await;
    let larder = start(&registry, &mount).await;
    let mut last = String::new();
    for number in 0..60 {
        last = registry.acr.push_blob("app", format!("content {number}"));
        assert_eq!(larder.get(&format!("/v2/app/blobs/{last}")).await.status, 200);
    }
    registry.passes_through(larder.client()).await;
    until("the last ones are stored", || larder.stores(&last) && larder.stores(registry.cold_layer())).await;
    assert!(larder.metric("larder_store_evictions_total{reason=\"space\"}").await > 0);
    registry.acr.stop_listening();
    registry.passes_through(larder.client()).await;
}

/// Only the index meets a disk without room, from the start or after a while. It is a hint: nothing is missing, and it is not made
/// anew all the time.
#[tokio::test]
async fn an_index_that_cannot_be_written_fails_nothing() {
    for (size, later) in [("4k", false), ("2m", true)] {
        let Some(mount) = tmpfs(size) else { return };
        let registry = Registry::start().await;
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::of(&registry.acr).with(|settings| settings.store.path = folder.path().join("store"));
        std::fs::create_dir(setup.store()).unwrap();
        std::os::unix::fs::symlink(mount.path(), setup.store().join("index")).unwrap();
        let larder = setup.start().await;
        if later {
            until("the index is there", || mount.path().join("sled-0.34-1/db").is_file()).await;
            let _ = std::fs::write(mount.path().join("somebody-elses"), vec![1; 4 * MIB]);
            // Enough for the index to want more than it has.
            for number in 0..40 {
                let layers: Vec<String> = (0..50).map(|layer| format!("{number}-{layer}")).collect();
                let files: Vec<_> = layers.iter().map(|name| (&name[..], "text/plain", name.clone().into())).collect();
                registry.acr.push_artifact("many", &format!("v{number}"), &files);
                assert_eq!(larder.get(&format!("/v2/many/manifests/v{number}")).await.status, 200);
            }
        }
        registry.warm_up(larder.client()).await;
        until("the layer is stored", || larder.stores(registry.warm_layer())).await;
        let rebuilds = async || larder.metric("larder_store_index_rebuilds_total").await;
        if later {
            until_async("the index has failed", async || rebuilds().await >= 1).await;
        } else {
            until_async("so has the one that was made anew", async || rebuilds().await == 2).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(rebuilds().await, 2, "it is left alone for a while");
        }
        assert_eq!(larder.metric("larder_store_writable").await, 1, "everything else can be written");
        registry.serves_what_it_has(larder.client()).await;
        let larder = larder.stop().await.start().await;
        registry.serves_what_it_has(larder.client()).await;
    }
}

/// What ext4 does when its journal can be written no more. It cannot be taken back without an unmount.
#[tokio::test]
async fn a_file_system_in_distress_that_becomes_read_only_fails_no_pull() {
    let Some((mount, _image)) = ext4("errors=remount-ro") else { return };
    let registry = Registry::start().await;
    let larder = start(&registry, &mount).await;
    registry.in_the_middle(larder.client(), async || mount.remount("abort")).await;
    says(&larder, "read_only").await;
    registry.serves_what_it_has(larder.client()).await;
    registry.passes_through(larder.client()).await;
}

/// Unmounted while running: what is open is served, nothing is written to the file system below, and it comes back.
#[tokio::test]
async fn a_file_system_that_is_unmounted_fails_no_pull() {
    let Some(mount) = tmpfs("64m") else { return };
    let registry = Registry::start().await;
    let larder = start(&registry, &mount).await;
    // A second way to it, so that the very file system can be mounted again.
    let spare = tempfile::tempdir().unwrap();
    let (at, aside) = (mount.path().to_str().unwrap(), spare.path().to_str().unwrap());
    run("mount", &["--bind", at, aside]).unwrap();
    registry.in_the_middle(larder.client(), async || mount.detach()).await;
    says(&larder, "gone").await;
    registry.passes_through(larder.client()).await;
    registry.serves_what_it_has(larder.client()).await;
    assert_eq!(std::fs::read_dir(mount.path()).unwrap().count(), 0, "nothing is written where the store was");
    run("mount", &["--bind", aside, at]).unwrap();
    run("umount", &["--lazy", aside]).unwrap();
    works_again(&registry, &larder).await;
    registry.serves_what_it_has(larder.client()).await;
}

#[tokio::test]
async fn a_folder_that_is_removed_is_made_anew() {
    let registry = Registry::start().await;
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::of(&registry.acr).with(|settings| settings.store.path = folder.path().join("store"));
    let larder = setup.start().await;
    registry.warm_up(larder.client()).await;
    let remove = || while std::fs::remove_dir_all(setup.store()).is_err() {};
    registry.in_the_middle(larder.client(), async || remove()).await;
    until_async("there is a store again", async || {
        larder.metric("larder_store_writable").await == 1 && setup.store().join("version").is_file()
    })
    .await;
    works_again(&registry, &larder).await;
}

/// The real program on a file system that is frozen: whoever writes there hangs in the kernel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_file_system_fails_no_pull_and_holds_nobody_up() {
    let Some((mount, _image)) = ext4("defaults") else { return };
    let registry = Registry::start().await;
    let setup = Setup::of(&registry.acr).with(|settings| settings.store.path = mount.store());
    let arguments = ["--upstream", &registry.acr.url(), "--login", "anonymous", "--max-size", "40MiB"];
    let no_reserve = |command: &mut Command| {
        command.env("LARDER_STORE__MIN_FREE", "\"0\"");
    };
    let mut larder = Process::start_with(&setup, &arguments, no_reserve).await;
    let (client, admin) = (larder.client(), Client::new(larder.admin));
    registry.warm_up(client).await;
    let stored = |digest: &str| mount.store().join("blobs/sha256").join(&digest["sha256:".len()..]).is_file();
    until("the layer is stored", || stored(registry.warm_layer())).await;
    let threads = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", larder.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap().trim().to_owned();
        line.parse::<usize>().unwrap()
    };
    let before = threads();
    let mut frozen = None;
    registry.in_the_middle(client, async || frozen = Some(mount.freeze())).await;
    let ready = async || admin.call("GET", "/readyz").send().await.text().to_owned();
    until_async("the trouble is shown", async || ready().await.contains("nothing is stored (hung)")).await;
    for _ in 0..3 {
        let hit = registry.serves_what_it_has(client).await;
        let miss = registry.passes_through(client).await;
        assert!(hit.max(miss) < Duration::from_secs(3), "{hit:?} and {miss:?} to the head of an answer");
    }
    // sled has up to eight of its own, as it likes.
    assert!(threads() <= before + 10, "{} threads, {before} before", threads());
    drop(frozen.take());
    until_async("the trouble is over", async || ready().await == "ready\n").await;
    until_async("what is pulled is stored again", async || {
        registry.passes_through(client).await;
        stored(registry.cold_layer())
    })
    .await;

    // The end is not held up either: only the kernel keeps what is left of the process, until the disk answers.
    frozen = Some(mount.freeze());
    registry.acr.push_blob("app", super::samples::incompressible(77, 3 * MIB));
    let target =
        format!("/v2/app/blobs/{}", registry.acr.push_blob("app", super::samples::incompressible(78, 3 * MIB)));
    assert_eq!(client.call("GET", &target).send().await.status, 200);
    until_async("the trouble is shown", async || ready().await.contains("nothing is stored (hung)")).await;
    let began = Instant::now();
    larder.signal(Signal::TERM);
    until("it has stopped", || larder.stderr().contains("\"stopped\"")).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(frozen);
    let status = larder.ended(Duration::from_secs(10)).await.expect("it has ended");
    assert_eq!(status.code(), Some(0), "{}", larder.stderr());
}
