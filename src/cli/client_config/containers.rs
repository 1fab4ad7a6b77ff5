//! What reads `registries.conf`: podman, skopeo, buildah, CRI-O.

use super::guide::{Guide, quoted};
use super::site::Site;
use std::fmt::Write as _;

pub(super) fn guide(site: &Site) -> Result<Guide, String> {
    let mut guide = Guide {
        client: "podman",
        restart: "none: the file is read at each pull. CRI-O: systemctl reload crio.",
        when_down: if site.sealed {
            "pulls fail: larder is the only way (--sealed)."
        } else {
            "pulls go to the registry itself."
        },
        ..Guide::default()
    };
    let mut text = String::new();
    for route in &site.routes {
        let base = quoted(&site.base(route)?);
        let name = quoted(&route.name);
        let insecure = if site.at.is_https() { "" } else { "insecure = true\n" };
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = if site.sealed {
            // A location of its own instead of a mirror: there is nothing to fall back to.
            write!(text, "[[registry]]\nprefix = {name}\nlocation = {base}\n{insecure}")
        } else {
            write!(
                text,
                "[[registry]]\nprefix = {name}\nlocation = {name}\n[[registry.mirror]]\nlocation = {base}\n{insecure}"
            )
        };
    }
    guide.file("/etc/containers/registries.conf.d/larder.conf", text);
    if let Some(ca) = &site.ca {
        guide.file(format!("/etc/containers/certs.d/{}/ca.crt", site.at.authority()), ca.as_str());
    }
    for route in &site.routes {
        let flag = site.plain_http(" --tls-verify=false", false);
        guide.line(format!("podman pull {}/REPOSITORY:TAG", route.name));
        guide.line(format!(
            "skopeo copy docker://{}/REPOSITORY:TAG dir:FOLDER\npodman pull{flag} {}/REPOSITORY:TAG     # without the file",
            route.name,
            site.base(route)?
        ));
    }
    guide.note(
        "mirrors are for pulls of images: push, search and list-tags go to the registry itself unless larder is named.",
    );
    guide.note("rootless podman reads $HOME/.config/containers/registries.conf.d/larder.conf instead, if that folder is there.");
    Ok(guide.finish(site))
}
