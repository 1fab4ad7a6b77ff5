//! `[[warm]]`: what is fetched ahead, again and again.

use super::declare::settings;
use super::quantities::TimeLimit;
use super::reader::Reader;
use super::values::{List, ReadableFile, RulePattern};
use crate::oci::RepositoryPattern;
use std::path::PathBuf;
use std::time::Duration;

settings! { "warm";
/// What is fetched ahead at the start and again and again, behind what people pull; any number of such tables.
pub struct WarmSettings {
    /// A file that names images, in any form that `larder warm` reads. It is read anew each time ([air-gap.md](air-gap.md#fetching-ahead)).
    list: Option<PathBuf> [ReadableFile, unset "no list", example "\"/etc/larder/base-images.txt\""];
    /// References, each with a tag or a digest.
    references: Vec<String> [List<String> = Vec::new(), example "[\"myacr.azurecr.io/base/os:1\"]"];
    /// Repositories, all of whose tags are fetched; with `*` (within a component; `**` anything) those that are stored here.
    repositories: Vec<RepositoryPattern> [List<RulePattern> = Vec::new(), example "[\"myacr.azurecr.io/base/os\"]"];
    /// How often.
    every: Duration [TimeLimit = Duration::from_secs(6 * 3600), example "\"6h\""];
    /// Whether what was fetched is kept whatever room is needed.
    pin: bool [= true, example "true"];
    /// Of images for several platforms only these; none means all.
    platforms: Vec<String> [List<String> = Vec::new(), example "[\"linux/amd64\"]"];
    /// Whether signatures and other things that are attached come, too.
    referrers: bool [= false, example "false"];
}}

/// Reports tables that name nothing, and references that name no version.
pub(super) fn check_warm(reader: &mut Reader, warm: &[WarmSettings]) {
    for (index, one) in warm.iter().enumerate() {
        let path = format!("warm.{index}");
        if one.list.is_none() && one.references.is_empty() && one.repositories.is_empty() {
            let text =
                r#"nothing is named: write list = "FILE", references = ["myacr.azurecr.io/base/os:1"] or repositories"#;
            reader.error_at(&path, "list", text);
        }
        for reference in &one.references {
            if !reference.rsplit('/').next().unwrap_or_default().contains([':', '@']) {
                let text = format!("'{reference}' has no tag and no digest; all tags are `repositories`");
                reader.error_at(&path, "references", text);
            }
        }
    }
}
