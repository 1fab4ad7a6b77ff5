//! Dockerfiles: `FROM`, `COPY --from`, `RUN --mount=from`, `# syntax`. Stages and `scratch` are no images.

use super::Reading;
use super::yaml::expand;
use std::collections::BTreeMap;

/// Whether a line begins with FROM, and no earlier one is anything but a comment, ARG or nothing.
pub(super) fn is_one(text: &str) -> bool {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let word = line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        match word.as_str() {
            "ARG" => {}
            "FROM" => return line.split_whitespace().count() > 1,
            _ => return false,
        }
    }
    false
}

pub(super) fn read(text: &str) -> Reading {
    let mut reading = Reading::of("Dockerfile");
    let (mut stages, mut arguments) = (Vec::new(), BTreeMap::new());
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    for line in joined.lines().map(str::trim) {
        if let Some(syntax) = line.strip_prefix('#').and_then(|rest| rest.trim().strip_prefix("syntax=")) {
            reading.take(syntax);
            continue;
        }
        let mut words = line.split_whitespace();
        let word = words.next().unwrap_or_default().to_ascii_uppercase();
        let rest: Vec<&str> = words.collect();
        let variable = |name: &str| arguments.get(name).cloned();
        match word.as_str() {
            "ARG" => {
                for pair in &rest {
                    if let Some((name, value)) = pair.split_once('=') {
                        arguments.insert(name.to_owned(), value.trim_matches(['"', '\'']).to_owned());
                    }
                }
            }
            "FROM" => {
                let mut plain = rest.iter().filter(|word| !word.starts_with("--"));
                let image = expand(plain.next().copied().unwrap_or_default(), &variable);
                if plain.next().is_some_and(|word| word.eq_ignore_ascii_case("as")) {
                    stages.extend(plain.next().map(|stage| (*stage).to_owned()));
                }
                take(&mut reading, &stages, &image);
            }
            _ => {
                let froms = rest.iter().filter_map(|word| {
                    let mounted = word.strip_prefix("--mount=");
                    let mounted =
                        mounted.and_then(|mount| mount.split(',').find_map(|part| part.strip_prefix("from=")));
                    word.strip_prefix("--from=").or(mounted)
                });
                for image in froms {
                    take(&mut reading, &stages, &expand(image, &variable));
                }
            }
        }
    }
    reading
}

fn take(reading: &mut Reading, stages: &[String], image: &str) {
    let is_stage = stages.iter().any(|stage| stage == image) || image.parse::<usize>().is_ok();
    if !is_stage {
        reading.take(image);
    }
}
