//! A reference a line, and Bicep's modules.

use super::Reading;
use std::collections::BTreeMap;

/// `reference [=target] [# comment]` (oc-mirror's mappings, Hauler's and Rancher's lists), and what larder's inventory missed.
pub(super) fn read(text: &str) -> Reading {
    let mut reading = Reading::of("plain list");
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

/// `br:HOST/PATH:TAG`, `br/public:PATH:TAG`, and `br/ALIAS:PATH:TAG` with the aliases of a `bicepconfig.json` in the same list.
pub(super) fn bicep(text: &str) -> Reading {
    let mut reading = Reading::of("Bicep file");
    let aliases = BTreeMap::from([("public", "mcr.microsoft.com/bicep")]);
    for module in text.lines().filter_map(|line| line.split('\'').nth(1)) {
        if let Some(reference) = module.strip_prefix("br:") {
            reading.take(reference);
        } else if let Some((alias, path)) = module.strip_prefix("br/").and_then(|rest| rest.split_once(':')) {
            match aliases.get(alias) {
                Some(place) => reading.take(&format!("{place}/{path}")),
                None => {
                    reading.left.insert(format!("{module}: an alias of bicepconfig.json; write br:HOST/PATH:TAG"));
                }
            }
        }
    }
    reading
}
