//! `larder user`: the file is changed whole or not at all, and nothing of others in it.

use super::common::users;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(folder: &Path, arguments: &[&str], password: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.env_clear().env("HOME", folder).current_dir(folder).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that wants no password does not read it.
    let _ = child.stdin.take().unwrap().write_all(password.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("htpasswd")).unwrap()
}

#[test]
fn users_are_added_changed_listed_and_removed_and_all_else_stays() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let file = ["--users-file", "htpasswd"];
    let add = |name: &str, password: &str| run(here, &[&["user", "add", name][..], &file].concat(), password);
    assert!(add("ann", "first\n").status.success());
    assert!(add("bob", "pw").status.success());
    let with_comment = format!("# ours\n\n{}legacy:$apr1$x$y\n", text(here));
    std::fs::write(here.join("htpasswd"), &with_comment).unwrap();
    std::fs::set_permissions(here.join("htpasswd"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    assert!(add("ann", "second\n").status.success());
    let changed = text(here);
    let (before, after): (Vec<&str>, Vec<&str>) = (with_comment.lines().collect(), changed.lines().collect());
    assert_eq!(after.len(), before.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before == after, !before.starts_with("ann:"), "{before} {after}");
    }
    let ann = after[2].split_once(':').unwrap().1;
    assert!(
        bcrypt::verify("second", ann).unwrap() && !bcrypt::verify("first", ann).unwrap() && ann.starts_with("$2y$10$")
    );
    let list = run(here, &["user", "list", "--users-file", "htpasswd"], "");
    assert_eq!(String::from_utf8(list.stdout).unwrap(), "ann\nbob\n");
    assert!(run(here, &["user", "remove", "legacy", "--users-file", "htpasswd"], "").status.success());
    assert!(run(here, &["user", "remove", "bob", "--users-file", "htpasswd"], "").status.success());
    assert_eq!(text(here), format!("{}\n", after[..3].join("\n")));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(here.join("htpasswd")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o640, "as it was");
    assert_eq!(std::fs::read_dir(here).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn what_cannot_be_done_fails_with_a_word_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let before = users(&[("ann", "pw")]);
    std::fs::write(here.join("htpasswd"), &before).unwrap();
    let long = "x".repeat(73);
    for (arguments, password, problem) in [
        (&["remove", "nobody"][..], "", "there is no user 'nobody'"),
        (&["add", "a:b"], "pw", "no colon"),
        (&["add", ""], "pw", "no name"),
        (&["add", "@x"], "pw", "cannot be a user's name"),
        (&["add", "bob"], "", "the password is empty"),
        (&["add", "bob"], "\nsecond line", "the password is empty"),
        (&["add", "bob"], &long, "72 bytes"),
    ] {
        let arguments = [&["user"], arguments, &["--users-file", "htpasswd"]].concat();
        let output = run(here, &arguments, password);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(problem), "{arguments:?}: {said}");
        assert_eq!(text(here), before);
    }
    let missing = run(here, &["user", "list", "--users-file", "none"], "");
    assert!(!missing.status.success() && String::from_utf8(missing.stderr).unwrap().contains("larder user add"));
}

#[test]
fn the_configuration_says_which_file() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let rule = "[[access.rules]]\nusers = [\"ann\"]\nrepositories = [\"**\"]\nallow = [\"push\"]\n";
    std::fs::write(
        here.join("larder.toml"),
        format!("[access]\nusers_file = \"htpasswd\"\n{rule}[[upstream]]\nname = \"a.io\"\n"),
    )
    .unwrap();
    let check = run(here, &["check", "--config", "larder.toml"], "");
    let said = String::from_utf8(check.stderr).unwrap();
    assert!(!check.status.success() && said.contains("larder.toml:2:") && said.contains("larder user add"), "{said}");
    assert!(run(here, &["user", "add", "ann", "--config", "larder.toml"], "pw\n").status.success());
    assert!(run(here, &["check", "--config", "larder.toml"], "").status.success());
    std::fs::write(here.join("plain.toml"), "[[upstream]]\nname = \"a.io\"\n").unwrap();
    let plain = run(here, &["user", "list", "--config", "plain.toml"], "");
    assert!(String::from_utf8(plain.stderr).unwrap().contains("names no users file"));
}

/// The daemon sees the one or the other file, whole, and never less: each reading has all the users that stay.
#[test]
fn whoever_reads_meanwhile_reads_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    std::fs::write(here.join("htpasswd"), users(&[("ann", "pw"), ("bob", "pw")])).unwrap();
    std::thread::scope(|scope| {
        let adding: Vec<_> = (0..4)
            .map(|number| {
                scope.spawn(move || {
                    let name = format!("user{number}");
                    assert!(run(here, &["user", "add", &name, "--users-file", "htpasswd"], "pw").status.success());
                })
            })
            .collect();
        while !adding.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let users = larder::config::read_users(&here.join("htpasswd")).unwrap();
            assert!(users.has("ann") && users.has("bob"));
        }
    });
    assert_eq!(larder::config::read_users(&here.join("htpasswd")).unwrap().names().len(), 6, "none is lost");
}
