//! `[upstream.freshness]`: for how long what can change is served without asking, and where that is otherwise.

use super::names::parse_tag_pattern;
use super::reader::Section;
use super::settings::{FreshnessRule, FreshnessSettings};
use super::upstreams::each;
use crate::oci::RepositoryPattern;
use std::time::Duration;

/// What holds where a rule says nothing.
const INHERITED: &str = "as in [upstream.freshness]";

/// Reads the section of the upstream called `upstream`.
pub(super) fn read_freshness(mut section: Section<'_>, upstream: &str) -> FreshnessSettings {
    let default = FreshnessSettings::default();
    let tag_ttl = section.or("tag_ttl", default.tag_ttl);
    let revalidate_wait = section.or("revalidate_wait", default.revalidate_wait);
    let max_stale = section.optional("max_stale", "a stored tag stands in whatever its age");
    let negative_ttl = section.or("negative_ttl", default.negative_ttl);
    let immutable_tags = each(&mut section, "immutable_tags", parse_tag_pattern);
    let tables = section.tables("rules");
    let rules = tables.into_iter().enumerate().map(|(index, (table, origin))| {
        let path = format!("{}.{index}", section.path_of("rules"));
        read_rule(Section::new(section.reader, &path, table, origin), upstream)
    });
    let rules = rules.collect();
    section.finish();
    FreshnessSettings { tag_ttl, revalidate_wait, max_stale, negative_ttl, immutable_tags, rules }
}

fn read_rule(mut section: Section<'_>, upstream: &str) -> FreshnessRule {
    let patterns = section.optional::<Vec<String>>("repositories", "none").unwrap_or_default();
    let advice = r#"write repositories of this upstream, such as "base/**""#;
    if patterns.is_empty() {
        section.error("repositories", format!("the rule is for no repository: {advice}"));
    }
    for pattern in &patterns {
        let own = pattern.strip_prefix(upstream).and_then(|rest| rest.strip_prefix('/'));
        let last = pattern.rsplit('/').next().unwrap_or_default();
        if let Some(own) = own {
            let message =
                format!("'{pattern}' begins with the upstream's name, which the rule stands under: write \"{own}\"");
            section.error("repositories", message);
        } else if last.contains([':', '@']) {
            let message =
                format!("'{pattern}' names a tag or a digest, and rules are for whole repositories: {advice}");
            section.error("repositories", message);
        }
    }
    let tag_ttl = section.optional::<Duration>("tag_ttl", INHERITED);
    let max_stale = section.optional::<Duration>("max_stale", INHERITED);
    let negative_ttl = section.optional::<Duration>("negative_ttl", INHERITED);
    let immutable_tags = section.optional::<Vec<String>>("immutable_tags", INHERITED);
    for pattern in immutable_tags.iter().flatten() {
        if let Err(message) = parse_tag_pattern(pattern) {
            section.error("immutable_tags", message);
        }
    }
    if tag_ttl.is_none() && max_stale.is_none() && negative_ttl.is_none() && immutable_tags.is_none() {
        section.error(
            "repositories",
            "the rule changes nothing: write tag_ttl, max_stale, negative_ttl or immutable_tags",
        );
    }
    section.finish();
    let repositories = patterns.iter().map(|pattern| RepositoryPattern::new(&format!("{upstream}/{pattern}")));
    FreshnessRule { repositories: repositories.collect(), tag_ttl, max_stale, negative_ttl, immutable_tags }
}
