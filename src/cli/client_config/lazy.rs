//! What starts containers before their layers are here: stargz, SOCI, nydus, overlaybd. They read ranges.

use super::builders::sealed_falls_back;
use super::guide::{CA_FILE, Guide, quoted};
use super::site::Site;
use std::fmt::Write as _;

const FALLS_BACK: &str = "layers are read from the registry itself.";

pub(super) fn stargz(site: &Site) -> Guide {
    resolver(site, "stargz", "/etc/containerd-stargz-grpc/config.toml", "systemctl restart stargz-snapshotter.")
}

pub(super) fn soci(site: &Site) -> Guide {
    resolver(site, "soci", "/etc/soci-snapshotter-grpc/config.toml", "systemctl restart soci-snapshotter.")
}

/// Their mirrors have no path: `ns` names the upstream.
fn resolver(site: &Site, client: &'static str, path: &str, restart: &'static str) -> Guide {
    let mut guide = Guide { client, restart, when_down: FALLS_BACK, ..Guide::default() };
    let mut text = String::new();
    for route in &site.routes {
        let _ = writeln!(
            text,
            "[[resolver.host.{}.mirrors]]\nhost = {}{}",
            quoted(&route.name),
            quoted(site.at.authority()),
            if site.at.is_https() { "" } else { "\ninsecure = true" }
        );
    }
    guide.file(path, text);
    if let Some(ca) = &site.ca {
        guide.file(format!("/usr/local/share/ca-certificates/{CA_FILE}"), ca.as_str());
        guide.note("larder's certificate authority is taken from the system's: run update-ca-certificates.");
    }
    guide.note("the manifest is pulled by containerd: larder client-config containerd as well.");
    sealed_falls_back(&mut guide, site, client);
    guide.finish(site)
}

pub(super) fn nydus(site: &Site) -> Result<Guide, String> {
    let Some(route) = site.routes.iter().find(|route| route.default) else {
        return Err("nydus sends neither a path nor ns, so that it reaches larder's default upstream alone: set default = true \
                    on the upstream in larder's configuration"
            .to_owned());
    };
    let mut guide = Guide {
        client: "nydus",
        restart: "systemctl restart nydus-snapshotter.",
        when_down: FALLS_BACK,
        ..Guide::default()
    };
    let folder = format!("/etc/nydus/certs.d/{}", route.folder());
    let mut text =
        format!("[host.{}]\n  ping_url = {}\n", quoted(&site.at.to_string()), quoted(&format!("{}/v2/", site.at)));
    if let Some(ca) = &site.ca {
        let _ = writeln!(text, "  ca = \"{CA_FILE}\"");
        guide.file(format!("{folder}/{CA_FILE}"), ca.as_str());
    }
    guide.file(format!("{folder}/hosts.toml"), text);
    guide.line("# nydus-snapshotter's own config.toml:\n[remote.mirrors_config]\n  dir = \"/etc/nydus/certs.d\"");
    let others: Vec<&str> = site.routes.iter().filter(|other| !other.default).map(|other| &*other.name).collect();
    if !others.is_empty() {
        guide.note(format!("left out, since they are not larder's default: {}.", others.join(", ")));
    }
    sealed_falls_back(&mut guide, site, "nydus");
    Ok(guide.finish(site))
}

pub(super) fn overlaybd(site: &Site) -> Result<Guide, String> {
    let mut guide = Guide {
        client: "overlaybd",
        restart: "systemctl restart overlaybd-snapshotter, after a change of its config.json.",
        when_down: "pulls fail: larder is named in the reference.",
        ..Guide::default()
    };
    if !site.at.is_https() {
        guide.line(format!(
            "# in /etc/overlaybd-snapshotter/config.json:\n\"mirrorRegistry\": [{{\"host\": {}, \"insecure\": true}}]",
            quoted(site.at.authority())
        ));
    }
    for route in &site.routes {
        guide.line(format!("ctr images rpull {}/REPOSITORY:TAG", site.base(route)?));
    }
    guide.note("overlaybd has no mirrors that keep the name: the reference names larder.");
    Ok(guide.finish(site))
}
