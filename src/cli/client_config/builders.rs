//! What builds images: BuildKit, GitHub's actions around it, kaniko, Bazel's rules_oci.

use super::guide::{CA_FILE, Guide, quoted};
use super::site::{Route, Site};
use std::fmt::Write as _;

const FALLS_BACK: &str = "pulls go to the registry itself.";
const FAILS: &str = "pulls fail: larder is named in the reference.";
const NO_RESTART: &str = "none.";

fn buildkitd_toml(site: &Site, ca_folder: &str) -> Result<String, String> {
    let mut text = String::new();
    for route in &site.routes {
        let (name, base) = (quoted(&route.name), quoted(&site.base(route)?));
        let _ = writeln!(text, "[registry.{name}]\n  mirrors = [{base}]");
    }
    let at = quoted(site.at.authority());
    if !site.at.is_https() {
        let _ = writeln!(text, "[registry.{at}]\n  http = true");
    } else if site.ca.is_some() {
        let _ = writeln!(text, "[registry.{at}]\n  ca = [\"{ca_folder}/{CA_FILE}\"]");
    }
    Ok(text)
}

pub(super) fn buildkit(site: &Site) -> Result<Guide, String> {
    let mut guide = Guide {
        client: "buildkit",
        restart: "buildkitd: systemctl restart buildkit. A builder of buildx is made anew with its file.",
        when_down: FALLS_BACK,
        ..Guide::default()
    };
    guide.file("/etc/buildkit/buildkitd.toml", buildkitd_toml(site, "/etc/buildkit")?);
    if let Some(ca) = &site.ca {
        guide.file(format!("/etc/buildkit/{CA_FILE}"), ca.as_str());
    }
    guide.line("docker buildx create --name larder --use --buildkitd-config /etc/buildkit/buildkitd.toml");
    guide.note("a builder of the driver docker-container is a container: say --in-container, or create it with --driver-opt network=host.");
    guide.note("FROM, COPY --from and cache imports are pulled through larder; pushes and cache exports go to the registry itself.");
    sealed_falls_back(&mut guide, site, "BuildKit");
    Ok(guide.finish(site))
}

pub(super) fn github_actions(site: &Site) -> Result<Guide, String> {
    let mut guide = Guide {
        client: "github-actions",
        restart: "none: each run makes its own builder.",
        when_down: FALLS_BACK,
        ..Guide::default()
    };
    let mut text = String::from("- uses: docker/setup-buildx-action@v3\n  with:\n    buildkitd-config-inline: |\n");
    for line in buildkitd_toml(site, "/etc/buildkit")?.lines() {
        let _ = writeln!(text, "      {line}");
    }
    guide.line(text.trim_end().to_owned());
    guide.note("the builder is a container: larder has to be reachable from it by the address above.");
    guide.note("images of `container:` and `services:` are pulled by the runner's own docker before any step: configure that one (larder client-config docker).");
    sealed_falls_back(&mut guide, site, "BuildKit");
    Ok(guide.finish(site))
}

pub(super) fn kaniko(site: &Site) -> Result<Guide, String> {
    let mut guide = Guide { client: "kaniko", restart: NO_RESTART, when_down: FALLS_BACK, ..Guide::default() };
    let mut line = String::from("/kaniko/executor");
    for route in &site.routes {
        let alias = dotless(route)?;
        let _ = write!(line, " --registry-map {}={}/{alias}", route.name, site.at.authority());
    }
    if !site.at.is_https() {
        let _ = write!(line, " --insecure-registry {}", site.at.authority());
    } else if site.ca.is_some() {
        let _ = write!(line, " --registry-certificate {}=/kaniko/{CA_FILE}", site.at.authority());
    }
    guide.line(line);
    if let Some(ca) = &site.ca {
        guide.file(format!("/kaniko/{CA_FILE}"), ca.as_str());
    }
    if site.sealed {
        guide.line("# and, so that nothing else is asked:\n--skip-default-registry-fallback");
    }
    guide
        .note("kaniko takes a path that begins with a name with a dot for a registry: it needs the alias without one.");
    Ok(guide.finish(site))
}

/// The name without a dot that kaniko needs.
fn dotless(route: &Route) -> Result<&str, String> {
    route.dotless.as_deref().ok_or_else(|| {
        format!(
            "kaniko needs a name without a dot for upstream {}: add aliases = [\"…\"] to it in larder's configuration",
            route.name
        )
    })
}

pub(super) fn rules_oci(site: &Site) -> Result<Guide, String> {
    let mut guide = Guide { client: "rules_oci", restart: NO_RESTART, when_down: FAILS, ..Guide::default() };
    guide.line("# MODULE.bazel");
    for route in &site.routes {
        let image = format!("{}/{}/REPOSITORY", site.at, route.component()?);
        guide.line(format!("oci.pull(name = \"base\", image = {}, digest = \"sha256:…\")", quoted(&image)));
    }
    guide.note("the scheme in front of the image says how larder is spoken to.");
    Ok(guide.finish(site))
}

pub(super) fn sealed_falls_back(guide: &mut Guide, site: &Site, who: &str) {
    if site.sealed {
        guide.note(format!(
            "{who} cannot be kept from asking the registry itself when larder says no: close the way in the firewall."
        ));
    }
}
