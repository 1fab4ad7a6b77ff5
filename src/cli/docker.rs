//! What Docker's configuration knows, for a person who has not said which registry is meant. Only names are read, no login.

use crate::config::Environment;
use std::collections::BTreeSet;

/// The registries that Docker is logged in to, as names for `--upstream`; Azure's first.
pub(super) fn registries(environment: &Environment) -> Vec<String> {
    let Some(file) = environment.docker_config() else { return Vec::new() };
    let parsed = std::fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    parsed.map_or_else(Vec::new, |config: serde_json::Value| names(&config))
}

fn names(config: &serde_json::Value) -> Vec<String> {
    let keys =
        |key: &str| config.get(key).and_then(serde_json::Value::as_object).into_iter().flat_map(|map| map.keys());
    let hosts: BTreeSet<String> = keys("auths").chain(keys("credHelpers")).filter_map(|key| host(key)).collect();
    let (mut azure, others): (Vec<_>, Vec<_>) = hosts.into_iter().partition(|host| host.contains(".azurecr."));
    azure.extend(others);
    azure
}

/// The host of a key, which may be a url (`https://index.docker.io/v1/`).
fn host(key: &str) -> Option<String> {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    let host = if host == "index.docker.io" || host == "registry-1.docker.io" { "docker.io" } else { host };
    (!host.is_empty() && !host.contains('@')).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hosts_and_azure_comes_first() {
        let config = serde_json::json!({
            "auths": { "https://index.docker.io/v1/": {"auth": "c2VjcmV0"}, "myacr.azurecr.io": {}, "a.lan:5000": {} },
            "credHelpers": { "ghcr.io": "gh", "myacr.azurecr.io": "acr" },
        });
        assert_eq!(names(&config), ["myacr.azurecr.io", "a.lan:5000", "docker.io", "ghcr.io"]);
        assert!(names(&serde_json::json!([])).is_empty());
    }

    #[test]
    fn the_file_is_found_by_variable_and_by_home() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".docker")).unwrap();
        std::fs::write(folder.path().join(".docker/config.json"), r#"{"auths":{"b.io":{}}}"#).unwrap();
        let home = folder.path().to_str().unwrap();
        let environment = [(if cfg!(windows) { "USERPROFILE" } else { "HOME" }, home)].into_iter().collect();
        assert_eq!(registries(&environment), ["b.io"]);
        let docker = folder.path().join(".docker");
        let environment = [("DOCKER_CONFIG", docker.to_str().unwrap())].into_iter().collect();
        assert_eq!(registries(&environment), ["b.io"]);
        assert!(registries(&Environment::default()).is_empty());
    }
}
