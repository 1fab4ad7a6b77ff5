//! What other users of the machine find: nothing that they may read, and a word to the operator where they might.

use crate::harness::simulator::{OCI_MANIFEST, Options};
use crate::harness::{Acr, Process, Setup, UPSTREAM};
use bytes::Bytes;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Every file and folder below `path`, and itself.
fn all(path: &Path, each: &mut dyn FnMut(&Path, u32)) {
    let metadata = fs::symlink_metadata(path).unwrap();
    each(path, metadata.permissions().mode() & 0o7777);
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            all(&entry.unwrap().path(), each);
        }
    }
}

/// Begins `larder serve` with an umask that would let everybody in.
async fn careless(setup: &Setup, arguments: &[&str]) -> Process {
    let program = env!("CARGO_BIN_EXE_larder");
    Process::start_with(setup, arguments, |command| {
        let given: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let variables: Vec<_> = command.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
        let mut shell = Command::new("/bin/sh");
        shell
            .env_clear()
            .args(["-c", "umask 000; ulimit -c unlimited 2>/dev/null; exec \"$0\" \"$@\"", program])
            .args(given);
        shell.envs(variables.into_iter().filter_map(|(name, value)| Some((name, value?))));
        shell
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        shell.process_group(0);
        *command = shell;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_for_larders_own_user_and_no_core_is_dumped() {
    let acr = Acr::start(Options::public()).await;
    let artifact = acr.push_artifact("a", "v1", &[("f", "text/plain", Bytes::from(vec![7; 3 << 20]))]);
    let setup = Setup::of(&acr);
    let config = setup.file(
        "larder.toml",
        &format!("[[upstream]]\nname = \"{UPSTREAM}\"\nurl = \"{}\"\ndefault = true\n", acr.url()),
    );
    let larder = careless(&setup, &["--config", config.to_str().unwrap(), "--allow", "push"]).await;
    let client = larder.client();
    for target in ["/v2/a/manifests/v1", "/v2/a/tags/list", &format!("/v2/a/blobs/{}", artifact.layers[0])] {
        assert_eq!(client.call("GET", target).send().await.status, 200, "{target}");
    }
    let put = client.call("PUT", "/v2/a/manifests/v2").line("Content-Type", OCI_MANIFEST);
    put.body(artifact.manifest.clone()).send().await;
    client.call("POST", "/v2/a/blobs/uploads/").send().await;
    let mut seen = 0;
    all(setup.store(), &mut |path, mode| {
        seen += 1;
        let is_socket = path.extension().is_some_and(|extension| extension == "sock");
        assert!(
            mode.trailing_zeros() >= 6 || is_socket && mode.trailing_zeros() >= 3,
            "{} has mode {mode:04o}",
            path.display()
        );
    });
    assert!(seen > 10, "{seen} files and folders");
    #[cfg(target_os = "linux")]
    {
        let limits = fs::read_to_string(format!("/proc/{}/limits", larder.child.id())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let values: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
        assert_eq!(values, ["0", "0"], "{core}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_others_may_look_into_is_said_at_the_start_and_by_check() {
    let acr = Acr::start(Options::public()).await;
    let setup = Setup::of(&acr);
    let text = |store: &str| {
        format!("[store]\npath = \"{store}\"\n[[upstream]]\nname = \"{UPSTREAM}\"\nurl = \"{}\"\n", acr.url())
    };
    let store = setup.store().to_path_buf();
    fs::create_dir_all(&store).unwrap();
    let config = setup.file("larder.toml", &text(store.to_str().unwrap()));
    for (mode, is_said) in [(0o755, true), (0o750, true), (0o700, false)] {
        fs::set_permissions(&store, fs::Permissions::from_mode(mode)).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_larder"));
        check.env_clear().env("HOME", setup.folder.path()).args(["check", "--config", config.to_str().unwrap()]);
        let output = check.output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(said.contains("open to other users"), is_said, "{mode:o}: {said}");
        let larder = Process::start(&setup, &["--config", config.to_str().unwrap()]).await;
        assert_eq!(larder.stderr().contains("open to other users"), is_said, "{mode:o}: {}", larder.stderr());
    }
}
