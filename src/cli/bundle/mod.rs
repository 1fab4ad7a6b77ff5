//! Moving content by disk: `export`, `import`, `inventory`. The daemon reads and writes the store; these read and write the
//! operator's files, with the operator's rights.

mod archive;
mod distribution;
pub(super) mod export;
mod folder;
pub(super) mod import;
pub(super) mod inventory;
mod names;
mod output;
mod report;
mod sizes;
mod skopeo;
mod source;
pub(super) mod warm;

use super::client::Trouble;

/// What went wrong with the operator's files.
fn io(action: &str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Trouble {
    let what = format!("cannot {action} '{}'", path.display());
    move |error| Trouble::failed(format!("{what}: {error}"))
}
