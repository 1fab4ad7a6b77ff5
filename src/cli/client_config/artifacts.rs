//! What is told on its command line: the reference names larder. There is no file to write.

use super::guide::{Guide, quoted};
use super::site::Site;

const NO_RESTART: &str = "none.";
const FAILS: &str = "pulls fail: larder is named in the reference.";

/// A guide with one line for each upstream.
fn by_reference(client: &'static str, site: &Site, line: impl Fn(&str, &str) -> String) -> Result<Guide, String> {
    let mut guide = Guide { client, restart: NO_RESTART, when_down: FAILS, ..Guide::default() };
    for route in &site.routes {
        guide.line(line(&site.base(route)?, &route.name));
        if route.default {
            guide.note(format!(
                "{} is larder's default: {}/REPOSITORY:TAG says the same.",
                route.name,
                site.at.authority()
            ));
        }
    }
    Ok(guide)
}

/// For programs in Go, which have no flag of their own for a certificate authority.
fn note_ca(guide: &mut Guide, site: &Site) {
    if site.ca.is_some() {
        guide.note("larder's certificate authority: SSL_CERT_FILE=FILE in the environment, or among the system's.");
    }
}

pub(super) fn oras(site: &Site) -> Result<Guide, String> {
    let plain = site.plain_http(" --plain-http", site.at.is_localhost());
    let ca = if site.ca.is_some() { " --ca-file CA.pem" } else { "" };
    let guide = by_reference("oras", site, |base, _| {
        format!(
            "oras pull{plain}{ca} {base}/REPOSITORY:TAG\noras discover{plain}{ca} {base}/REPOSITORY:TAG\n\
             oras repo tags{plain}{ca} {base}/REPOSITORY"
        )
    });
    Ok(guide?.finish(site))
}

pub(super) fn helm(site: &Site) -> Result<Guide, String> {
    let plain = site.plain_http(" --plain-http", false);
    let ca = if site.ca.is_some() { " --ca-file CA.pem" } else { "" };
    let guide = by_reference("helm", site, |base, _| {
        format!(
            "helm pull oci://{base}/CHART --version VERSION{plain}{ca}\nhelm install NAME oci://{base}/CHART{plain}{ca}"
        )
    });
    Ok(guide?.finish(site))
}

pub(super) fn crane(site: &Site) -> Result<Guide, String> {
    // It speaks plain HTTP to localhost, loopback and private addresses by itself; for any other name it is told.
    let flag = site.plain_http(" --insecure", site.at.is_loopback());
    let mut guide = by_reference("crane", site, |base, _| format!("crane{flag} pull {base}/REPOSITORY:TAG image.tar"))?;
    note_ca(&mut guide, site);
    Ok(guide.finish(site))
}

pub(super) fn cosign(site: &Site) -> Result<Guide, String> {
    let flag = site.plain_http(" --allow-http-registry", site.at.is_loopback());
    let mut guide = by_reference("cosign", site, |base, _| {
        format!("cosign verify{flag} --key cosign.pub {base}/REPOSITORY@sha256:…")
    })?;
    note_ca(&mut guide, site);
    guide.note("the digest and the signature are what is verified, not the name: a renamed reference verifies.");
    Ok(guide.finish(site))
}

pub(super) fn notation(site: &Site) -> Result<Guide, String> {
    let flag = site.plain_http(" --insecure-registry", site.at.is_localhost());
    let mut guide =
        by_reference("notation", site, |base, _| format!("notation verify{flag} {base}/REPOSITORY@sha256:…"))?;
    for route in &site.routes {
        let scope = format!("{}/REPOSITORY", site.base(route)?);
        guide.line(format!("# in the trust policy: \"registryScopes\": [{}]", quoted(&scope)));
    }
    note_ca(&mut guide, site);
    guide.note("scopes are compared with the reference as it is typed: they have to name larder, or be \"*\".");
    Ok(guide.finish(site))
}

pub(super) fn regctl(site: &Site) -> Guide {
    let mut guide = Guide {
        client: "regctl",
        restart: NO_RESTART,
        when_down: "pulls go to the registry itself.",
        ..Guide::default()
    };
    let at = site.at.authority();
    if !site.at.is_https() {
        guide.line(format!("regctl registry set {at} --tls disabled --skip-check"));
    } else if site.ca.is_some() {
        guide.line(format!("regctl registry set {at} --cacert \"$(cat CA.pem)\" --skip-check"));
    }
    for route in &site.routes {
        // No path prefix: it would hold for every use of larder, and `ns` names the upstream by itself.
        guide.line(format!("regctl registry set {} --mirror {at} --skip-check", route.name));
        guide.line(format!(
            "regctl image export {}/REPOSITORY:TAG image.tar     # references stay as they are",
            route.name
        ));
    }
    guide.note("mirrors are for pulls: pushes and deletes go to the registry itself.");
    guide.finish(site)
}

pub(super) fn oras_py(site: &Site) -> Result<Guide, String> {
    let at = quoted(site.at.authority());
    let insecure = if site.at.is_https() { "" } else { ", insecure=True" };
    let guide = by_reference("oras-py", site, |base, _| {
        let target = quoted(&format!("{base}/REPOSITORY:TAG"));
        format!(
            "client = oras.client.OrasClient(hostname={at}{insecure})\nclient.pull(target={target}, outdir=\"FOLDER\")"
        )
    });
    Ok(guide?.finish(site))
}

pub(super) fn oci_client(site: &Site) -> Guide {
    let mut guide = Guide { client: "oci-client", restart: NO_RESTART, when_down: "pulls fail.", ..Guide::default() };
    let at = quoted(site.at.authority());
    let protocol = if site.at.is_https() {
        "ClientProtocol::Https".to_owned()
    } else {
        format!("ClientProtocol::HttpsExcept(vec![{at}.into()])")
    };
    let roots = if site.ca.is_some() {
        guide.line("let ca = Certificate { encoding: CertificateEncoding::Pem, data: std::fs::read(\"CA.pem\")? };");
        " extra_root_certificates: vec![ca],"
    } else {
        ""
    };
    guide.line(format!(
        "let client = Client::new(ClientConfig {{ protocol: {protocol},{roots} ..Default::default() }});"
    ));
    for route in &site.routes {
        let reference = quoted(&format!("{}/REPOSITORY:TAG", route.name));
        guide.line(format!(
            "let mut reference: Reference = {reference}.parse()?;\nreference.set_mirror_registry({at}.into());"
        ));
    }
    guide.note("the mirror is asked with ns: references stay as they are. Without it, larder is named: \"ADDRESS/REGISTRY/REPOSITORY:TAG\".");
    guide.finish(site)
}
