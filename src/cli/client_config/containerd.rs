//! containerd, and what reads its `hosts.toml`.

use super::guide::{CA_FILE, Guide, quoted};
use super::site::{Route, Site};
use std::fmt::Write as _;

pub(super) fn guide(site: &Site) -> Guide {
    let mut guide = Guide {
        client: "containerd",
        restart: "none: containerd reads hosts.toml at each pull. Only a new config_path needs a restart of containerd.",
        when_down: if site.sealed {
            "pulls fail: larder is the only way (--sealed)."
        } else {
            "pulls go to the registry itself, with containerd's own login for it."
        },
        ..Guide::default()
    };
    hosts_files(&mut guide, site, "/etc/containerd/certs.d");
    guide.line("# /etc/containerd/config.toml must name the folder; version 2, containerd 1.x:");
    guide.line("[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"");
    guide.line("# version 3, containerd 2.x:");
    guide.line("[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"");
    for route in &site.routes {
        guide.line(format!(
            "ctr images pull --hosts-dir /etc/containerd/certs.d {}/REPOSITORY:TAG     # nerdctl and kubelet need no flag",
            route.name
        ));
    }
    guide.note("references stay as they are. The files are for pulls; a push goes to the registry itself.");
    guide.finish(site)
}

/// A `hosts.toml` for every upstream below `root`.
pub(super) fn hosts_files(guide: &mut Guide, site: &Site, root: &str) {
    for route in &site.routes {
        let folder = format!("{root}/{}", route.folder());
        guide.file(format!("{folder}/hosts.toml"), hosts_toml(site, route));
        if let Some(ca) = &site.ca {
            guide.file(format!("{folder}/{CA_FILE}"), ca.as_str());
        }
    }
}

/// With the upstream in the path, which any version sends; without an alias that fits there, `ns` alone names it.
fn hosts_toml(site: &Site, route: &Route) -> String {
    let (address, in_path) = match &route.component {
        Some(component) => (format!("{}/v2/{component}", site.at), true),
        None => (site.at.to_string(), false),
    };
    let mut keys = vec!["capabilities = [\"pull\", \"resolve\"]".to_owned()];
    if in_path {
        keys.push("override_path = true".to_owned());
    }
    if site.ca.is_some() {
        keys.push(format!("ca = \"{CA_FILE}\""));
    }
    let mut text = String::new();
    if site.sealed {
        let _ =
            writeln!(text, "# larder is the only way: what is asked last is larder too\nserver = {}", quoted(&address));
        for key in &keys {
            let _ = writeln!(text, "{key}");
        }
        text.push('\n');
    } else {
        let _ = writeln!(text, "# no `server`: if larder is down, {} itself is asked", route.name);
    }
    // containerd 1.6 takes no file without a host.
    let _ = writeln!(text, "[host.{}]", quoted(&address));
    for key in &keys {
        let _ = writeln!(text, "  {key}");
    }
    text
}

pub(super) fn k3s(site: &Site) -> Guide {
    let mut guide = Guide {
        client: "k3s",
        restart: "k3s or k3s-agent (rke2-server, rke2-agent) on the node: systemctl restart k3s.",
        when_down: if site.sealed {
            "pulls fail, if k3s runs with --disable-default-registry-endpoint."
        } else {
            "pulls go to the registry itself."
        },
        ..Guide::default()
    };
    let mut text = String::from("mirrors:\n");
    for route in &site.routes {
        // k3s makes a hosts.toml without a path of it, so that `ns` names the upstream.
        let _ = writeln!(text, "  {}:\n    endpoint:\n      - {}", quoted(&route.name), quoted(&site.at.to_string()));
    }
    if let Some(ca) = &site.ca {
        let ca_file = format!("/etc/rancher/k3s/{CA_FILE}");
        let _ = writeln!(text, "configs:\n  {}:\n    tls:\n      ca_file: {ca_file}", quoted(site.at.authority()));
        guide.file(ca_file, ca.as_str());
    }
    guide.file("/etc/rancher/k3s/registries.yaml", text);
    guide.note("RKE2 reads the same file as /etc/rancher/rke2/registries.yaml.");
    if site.sealed {
        guide.note("start k3s with --disable-default-registry-endpoint: without it, it goes to the registry when larder says no.");
    }
    guide.finish(site)
}
