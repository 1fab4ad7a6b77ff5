//! Docker: a mirror for Docker Hub in any version, `hosts.toml` since 28, and renamed references always.

use super::containerd::hosts_files;
use super::guide::Guide;
use super::site::Site;
use serde_json::{Map, Value, json};

/// The only registry that `registry-mirrors` is for.
const HUB: &str = "docker.io";

pub(super) fn guide(site: &Site) -> Guide {
    let hub = site.routes.iter().find(|route| route.name == HUB);
    let mut guide = Guide {
        client: "docker",
        restart: if hub.is_some() || needs_insecure(site) {
            "dockerd, for daemon.json: systemctl restart docker (containers stop unless live-restore is set). None for hosts.toml."
        } else {
            "none: hosts.toml is read at each pull."
        },
        when_down: if site.sealed {
            "pulls by hosts.toml and by larder's name fail; registry-mirrors always falls back to Docker Hub, even so."
        } else {
            "pulls by hosts.toml and registry-mirrors go to the registry itself; those by larder's name fail."
        },
        ..Guide::default()
    };
    let mut daemon = Map::new();
    if let Some(hub) = hub {
        // A mirror without a path is understood by every version; with one, since 25.
        let mirror = if hub.default { site.at.to_string() } else { format!("{}/{HUB}", site.at) };
        daemon.insert("registry-mirrors".to_owned(), json!([mirror]));
        if !hub.default {
            guide.note("a mirror with a path needs Docker 25 or newer; older ones need docker.io as larder's default upstream.");
        }
    }
    if needs_insecure(site) {
        daemon.insert("insecure-registries".to_owned(), json!([site.at.authority()]));
    }
    if !daemon.is_empty() {
        guide.file("/etc/docker/daemon.json", format!("{:#}\n", Value::Object(daemon)));
        guide.note("daemon.json may hold settings of yours: add the keys to them.");
    }
    hosts_files(&mut guide, site, "/etc/docker/certs.d");
    if let Some(ca) = &site.ca {
        guide.file(format!("/etc/docker/certs.d/{}/ca.crt", site.at.authority()), ca.as_str());
    }
    for route in &site.routes {
        let Ok(base) = site.base(route) else { continue };
        guide.line(format!("docker pull {base}/REPOSITORY:TAG     # any version, nothing to configure"));
    }
    guide.note(
        "hosts.toml is read by Docker 28 and newer with the containerd image store; references then stay as they are.",
    );
    guide.finish(site)
}

/// dockerd speaks plain HTTP to loopback without being told.
fn needs_insecure(site: &Site) -> bool {
    !site.at.is_https() && !site.at.is_loopback()
}
