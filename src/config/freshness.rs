//! `[upstream.freshness]`: for how long what can change is served without asking, and where that is otherwise.

use super::declare::settings;
use super::reader::Reader;
use super::values::{List, OWN_ADVICE, OwnPattern, TagPattern};
use crate::oci::RepositoryPattern;
use std::time::Duration;

settings! { "upstream.freshness";
/// How long what can change is served.
pub struct FreshnessSettings {
    /// How long a stored tag is served without asking upstream.
    tag_ttl: Duration [= Duration::from_secs(60)];
    /// How long a request waits for upstream's answer about an older tag before it gets the stored one.
    revalidate_wait: Duration [= Duration::from_secs(1)];
    /// How old a stored tag may be to be served while upstream is away.
    max_stale: Option<Duration> [Duration, unset "a stored tag is served whatever its age", example "\"7d\""];
    /// How long upstream's "not found" is believed (`"0s"`: not at all); that of `sha256-…` tags at most 1 s.
    // A geo-replica may be behind, and a person who pushes past larder expects to see it at once.
    negative_ttl: Duration [= Duration::from_secs(5)];
    /// Patterns of tags that never move and are never asked for again; `*` stands for any characters. `["v*"]` suits version tags.
    immutable_tags: Vec<String> [List<TagPattern> = Vec::new()];
    /// What is otherwise in some repositories. The first rule that names a repository holds for it.
    rules: Vec<FreshnessRule> [tables];
}}

settings! { "upstream.freshness.rules";
/// What is otherwise in some repositories of this upstream, any number of such tables. The first one that names a repository holds
/// for it; what it leaves out is as above.
pub struct FreshnessRule {
    /// Which repositories the rule is for, without the upstream's name; `*` within a component, `**` anything.
    repositories: Vec<RepositoryPattern> [List<OwnPattern> = Vec::new(), example "[\"releases/**\"]"];
    /// `tag_ttl` there.
    tag_ttl: Option<Duration> [Duration, unset "as in [upstream.freshness]", example "\"1h\""];
    /// `max_stale` there.
    max_stale: Option<Duration> [Duration, unset "as in [upstream.freshness]", example "\"30d\""];
    /// `negative_ttl` there.
    negative_ttl: Option<Duration> [Duration, unset "as in [upstream.freshness]", example "\"1s\""];
    /// `immutable_tags` there.
    immutable_tags: Option<Vec<String>> [List<TagPattern>, unset "as in [upstream.freshness]", example "[\"*\"]"];
}}

/// Checks the rules of an upstream, and makes their patterns those of whole names.
pub(super) fn check_rules(reader: &mut Reader, freshness: &mut FreshnessSettings, path: &str, upstream: &str) {
    for (index, rule) in freshness.rules.iter_mut().enumerate() {
        let path = format!("{path}.freshness.rules.{index}");
        if rule.repositories.is_empty() {
            reader.error_at(&path, "repositories", format!("the rule is for no repository: {OWN_ADVICE}"));
        }
        for pattern in &mut rule.repositories {
            let text = pattern.as_str();
            if let Some(own) = text.strip_prefix(upstream).and_then(|rest| rest.strip_prefix('/')) {
                let message =
                    format!("'{text}' begins with the upstream's name, which the rule stands under: write \"{own}\"");
                reader.error_at(&path, "repositories", message);
            }
            *pattern = RepositoryPattern::new(&format!("{upstream}/{text}"));
        }
        let is_empty = rule.tag_ttl.is_none() && rule.max_stale.is_none();
        if is_empty && rule.negative_ttl.is_none() && rule.immutable_tags.is_none() {
            let message = "the rule changes nothing: write tag_ttl, max_stale, negative_ttl or immutable_tags";
            reader.error_at(&path, "repositories", message);
        }
    }
}
