//! A reference a line, and Bicep's modules.

use super::Reading;
use super::yaml::without_comments;
use serde::Deserialize;
use std::collections::BTreeMap;

/// `reference [=target] [# comment]` (oc-mirror's mappings, Hauler's and Rancher's lists), and what larder's inventory missed.
pub(super) fn read(text: &str) -> Reading {
    let mut reading = Reading::of(super::PLAIN);
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let line = match line.strip_prefix("missing ").and_then(|rest| rest.split_once(' ')) {
            Some((_, reference)) => reference,
            None if text.starts_with("larder-inventory ") => continue,
            None => line,
        };
        // A digest has no `=`, and neither has a tag.
        reading.take(line.split('=').next().unwrap_or_default());
    }
    reading
}

/// `moduleAliases.br` of a `bicepconfig.json`: what stands before a module's path, by alias.
pub(super) fn bicep_aliases(text: &str) -> BTreeMap<String, String> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Config {
        module_aliases: Aliases,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Aliases {
        br: BTreeMap<String, Alias>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Alias {
        registry: String,
        #[serde(default)]
        module_path: Option<String>,
    }
    let config: Config = serde_json::from_str(&without_comments(text)).unwrap_or_default();
    let place = |Alias { registry, module_path }| match module_path {
        Some(path) => format!("{registry}/{path}"),
        None => registry,
    };
    config.module_aliases.br.into_iter().map(|(name, alias)| (name, place(alias))).collect()
}

/// `br:HOST/PATH:TAG`, `br/public:PATH:TAG`, and `br/ALIAS:PATH:TAG` with the aliases of a `bicepconfig.json`.
pub(super) fn bicep(text: &str, aliases: &BTreeMap<String, String>) -> Reading {
    let mut reading = Reading::of("Bicep file");
    let place_of = |alias: &str| match aliases.get(alias) {
        Some(place) => Some(place.as_str()),
        None => (alias == "public").then_some("mcr.microsoft.com/bicep"),
    };
    for module in text.lines().filter_map(|line| line.split('\'').nth(1)) {
        if let Some(reference) = module.strip_prefix("br:") {
            reading.take(reference);
        } else if let Some((alias, path)) = module.strip_prefix("br/").and_then(|rest| rest.split_once(':')) {
            match place_of(alias) {
                Some(place) => reading.take(&format!("{place}/{path}")),
                None => {
                    reading.left.insert(format!("{module}: an alias of bicepconfig.json; put that file beside it or above it, or write br:HOST/PATH:TAG"));
                }
            }
        }
    }
    reading
}
