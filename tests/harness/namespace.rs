//! Tests with a network or mounts of their own. This needs root, or leave for this user to make namespaces; a test fails where it has
//! neither.

use std::process::Command;

/// Set within the namespaces.
const INSIDE: &str = "LARDER_TEST_NAMESPACE";

/// `unshare` for these namespaces (`--net`, `--mount`); what it is to run comes next.
pub fn unshare(namespaces: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(namespaces);
    command
}

/// Whether the test runs in the namespaces. If not, this runs it there, after the lines of `setup`: the caller has nothing left to do.
pub fn is_inside(namespaces: &[&str], setup: &str, test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = unshare(namespaces);
    command.args(["sh", "-c", &format!("set -e; {setup}; exec \"$0\" \"$@\"")]).arg(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads", "1"]);
    let output = command.env(INSIDE, "1").output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{test} in namespaces of its own: {said}");
    false
}
