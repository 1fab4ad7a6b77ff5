//! Which client is run by which route, and what each of them has to do. `docs/clients.md` holds this table; a test compares them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::stage::{Image, Stage};

/// A client by one route.
pub(crate) struct Row {
    pub(crate) client: &'static str,
    /// How the upstream is named; also the name of the image, so that no two rows share a byte.
    pub(crate) route: &'static str,
    /// What is written or typed for it.
    pub(crate) how: &'static str,
}

const fn row(client: &'static str, route: &'static str, how: &'static str) -> Row {
    Row { client, route, how }
}

/// Every row is run cold, warm, and with the upstream gone.
pub(crate) const ROWS: &[Row] = &[
    row("oras", "default", "`oras pull localhost:5000/samples/app:v1`"),
    row("oras", "prefix", "`oras pull localhost:5000/myacr.azurecr.io/samples/app:v1`"),
    row("oras", "alias", "`oras pull localhost:5000/acr/samples/app:v1`"),
    row("oras", "https", "`oras pull --ca-file CA.pem larder.lan:5443/myacr.azurecr.io/samples/app:v1`"),
    row("oras 1.1", "default", "`oras pull localhost:5000/samples/app:v1`"),
    row("oras 1.1", "prefix", "`oras pull localhost:5000/myacr.azurecr.io/samples/app:v1`"),
    row("oras 1.1", "alias", "`oras pull localhost:5000/acr/samples/app:v1`"),
    row("helm", "default", "`helm pull oci://localhost:5000/charts/mychart --version 0.1.0 --plain-http`"),
    row(
        "helm",
        "prefix",
        "`helm pull oci://localhost:5000/myacr.azurecr.io/charts/mychart --version 0.1.0 --plain-http`",
    ),
    row("helm", "alias", "`helm pull oci://localhost:5000/acr/charts/mychart --version 0.1.0 --plain-http`"),
    row(
        "helm",
        "https",
        "`helm pull oci://larder.lan:5443/myacr.azurecr.io/charts/mychart --version 0.1.0 --ca-file CA.pem`",
    ),
    row("crane", "default", "`crane pull localhost:5000/samples/app:v1 image.tar`"),
    row("crane", "prefix", "`crane pull localhost:5000/myacr.azurecr.io/samples/app:v1 image.tar`"),
    row("crane", "alias", "`crane pull localhost:5000/acr/samples/app:v1 image.tar`"),
    row(
        "crane",
        "https",
        "`SSL_CERT_FILE=CA.pem crane pull larder.lan:5443/myacr.azurecr.io/samples/app:v1 image.tar`",
    ),
    row("cosign", "default", "`cosign verify --key cosign.pub localhost:5000/samples/app@sha256:…`"),
    row("cosign", "prefix", "`cosign verify --key cosign.pub localhost:5000/myacr.azurecr.io/samples/app@sha256:…`"),
    row("cosign", "alias", "`cosign verify --key cosign.pub localhost:5000/acr/samples/app@sha256:…`"),
    row(
        "cosign",
        "https",
        "`SSL_CERT_FILE=CA.pem cosign verify --key cosign.pub larder.lan:5443/myacr.azurecr.io/samples/app@sha256:…`",
    ),
    row("regctl", "default", "`regctl image export localhost:5000/samples/app:v1`"),
    row("regctl", "prefix", "`regctl image export localhost:5000/myacr.azurecr.io/samples/app:v1`"),
    row("regctl", "alias", "`regctl image export localhost:5000/acr/samples/app:v1`"),
    row("regctl", "mirror", "`regctl registry set myacr.azurecr.io --mirror localhost:5000`: `ns`"),
    row("regctl", "https-mirror", "`regctl registry set larder.lan:5443 --cacert …`, then as the mirror"),
    row("skopeo", "default", "`skopeo copy --src-tls-verify=false docker://localhost:5000/samples/app:v1 dir:app`"),
    row(
        "skopeo",
        "prefix",
        "`skopeo copy --src-tls-verify=false docker://localhost:5000/myacr.azurecr.io/samples/app:v1 dir:app`",
    ),
    row("skopeo", "alias", "`skopeo copy --src-tls-verify=false docker://localhost:5000/acr/samples/app:v1 dir:app`"),
    row("skopeo", "mirror", "`registries.conf.d/larder.conf`"),
    row("skopeo", "exclusive", "`registries.conf.d/larder.conf` of `--sealed`"),
    row("skopeo", "https", "`certs.d/larder.lan:5443/ca.crt`"),
    row("skopeo", "https-mirror", "`registries.conf.d/larder.conf` and `certs.d`"),
    row("podman", "default", "`podman pull --tls-verify=false localhost:5000/samples/app:v1`"),
    row("podman", "prefix", "`podman pull --tls-verify=false localhost:5000/myacr.azurecr.io/samples/app:v1`"),
    row("podman", "alias", "`podman pull --tls-verify=false localhost:5000/acr/samples/app:v1`"),
    row("podman", "mirror", "`registries.conf.d/larder.conf`"),
    row("podman", "exclusive", "`registries.conf.d/larder.conf` of `--sealed`"),
    row(
        "podman",
        "zstd-chunked",
        "`enable_partial_images` in `storage.conf`, a layer of zstd:chunked: several ranges at once",
    ),
    row("podman", "https", "`certs.d/larder.lan:5443/ca.crt`"),
    row("podman", "https-mirror", "`registries.conf.d/larder.conf` and `certs.d`"),
    row("buildah", "default", "`buildah pull --tls-verify=false localhost:5000/samples/app:v1`"),
    row("buildah", "prefix", "`buildah pull --tls-verify=false localhost:5000/myacr.azurecr.io/samples/app:v1`"),
    row("buildah", "alias", "`buildah pull --tls-verify=false localhost:5000/acr/samples/app:v1`"),
    row("buildah", "mirror", "`registries.conf.d/larder.conf`"),
    row("buildah", "exclusive", "`registries.conf.d/larder.conf` of `--sealed`"),
    row("buildah", "https", "`certs.d/larder.lan:5443/ca.crt`"),
    row("buildah", "https-mirror", "`registries.conf.d/larder.conf` and `certs.d`"),
    row("containerd", "default", "`ctr images pull --plain-http localhost:5000/samples/app:v1`"),
    row("containerd", "prefix", "`ctr images pull --plain-http localhost:5000/myacr.azurecr.io/samples/app:v1`"),
    row("containerd", "alias", "`ctr images pull --plain-http localhost:5000/acr/samples/app:v1`"),
    row("containerd", "hosts.toml", "`certs.d/myacr.azurecr.io/hosts.toml`: path and `ns`"),
    row(
        "containerd",
        "url-prefix",
        "a `hosts.toml` by hand: `[host.\"http://localhost:5000/myacr.azurecr.io\"]` without `override_path`",
    ),
    row("containerd", "ns", "`certs.d/plain.lan_5000_/hosts.toml`: `ns` alone"),
    row("containerd", "exclusive", "`certs.d/myacr.azurecr.io/hosts.toml` of `--sealed`"),
    row("containerd", "https-hosts.toml", "`certs.d/myacr.azurecr.io/hosts.toml` with `ca`"),
    row("oci-client", "default", "`Client::pull` of `localhost:5000/samples/app:v1`"),
    row("oci-client", "prefix", "`Client::pull` of `localhost:5000/myacr.azurecr.io/samples/app:v1`"),
    row("oci-client", "alias", "`Client::pull` of `localhost:5000/acr/samples/app:v1`"),
    row("oci-client", "mirror", "`Reference::set_mirror_registry`: `ns`"),
    row("oci-client", "https", "`ClientConfig::extra_root_certificates`"),
    row("docker", "default", "`docker pull localhost:5000/samples/app:v1`"),
    row("docker", "prefix", "`docker pull localhost:5000/myacr.azurecr.io/samples/app:v1`"),
    row("docker", "alias", "`docker pull localhost:5000/acr/samples/app:v1`"),
    row("docker", "registry-mirrors", "`registry-mirrors` in `daemon.json`, with `docker.io` as the default upstream"),
    row("docker", "https", "`certs.d/larder.lan:5443/ca.crt`"),
];

/// What pushes through larder, and how; larder runs with `--allow push,delete`.
pub(crate) const PUSHES: &[(&str, &str)] = &[
    ("oras", "`oras push`, `attach`, `tag`, `manifest delete`, `cp` within an upstream and to another one; over https"),
    ("helm", "`helm push mychart-0.1.0.tgz oci://localhost:5000/charts --plain-http`; over https"),
    ("crane", "`crane push`, `delete`, `copy` within an upstream and to another one; over https"),
    ("cosign", "`cosign sign --key cosign.key localhost:5000/myacr.azurecr.io/samples/app@sha256:…`"),
    ("regctl", "`regctl image copy ocidir://app:v1 localhost:5000/acr/samples/app:v1`"),
    ("skopeo", "`skopeo copy --dest-tls-verify=false oci:app:v1 docker://localhost:5000/samples/app:v1`; over https"),
    ("podman", "`podman push --tls-verify=false`, also to another upstream"),
    ("buildah", "`buildah push --tls-verify=false`, also to another upstream"),
    ("containerd", "`ctr images push --plain-http localhost:5000/myacr.azurecr.io/samples/app:v1`"),
    ("oci-client", "`Client::push`, in chunks and in one piece"),
    ("docker", "`docker push localhost:5000/myacr.azurecr.io/samples/app:v1`, also to another upstream"),
];

/// A client that keeps the registry's own name, with files of one kind, while larder is down or sealed without the image.
pub(crate) struct Fallback {
    pub(crate) client: &'static str,
    /// Whether the files are those of `--sealed`.
    pub(crate) sealed: bool,
}

impl Fallback {
    /// What stands for the route where word of its success is left.
    pub(crate) fn name(&self) -> &'static str {
        if self.sealed { "fallback-sealed" } else { "fallback" }
    }
}

const fn falls_back(client: &'static str) -> Fallback {
    Fallback { client, sealed: false }
}

const fn stays(client: &'static str) -> Fallback {
    Fallback { client, sealed: true }
}

pub(crate) const FALLBACKS: &[Fallback] = &[
    falls_back("containerd"),
    stays("containerd"),
    falls_back("podman"),
    stays("podman"),
    falls_back("skopeo"),
    stays("skopeo"),
    falls_back("buildah"),
    stays("buildah"),
    falls_back("regctl"),
];

/// When something is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Cold,
    Warm,
    Gone,
}

/// Runs every row of a client in front of an upstream of that name: cold, warm, and with the upstream gone.
///
/// `pull` gets what it is to name, and panics unless the client ends up with the image.
pub(crate) fn run(client: &str, stage: &Stage, routes: &[&'static str], pull: impl Fn(&str, &Image, When)) {
    for when in [When::Cold, When::Warm, When::Gone] {
        if when == When::Gone {
            stage.lose_upstream();
        }
        for route in routes {
            let before = stage.larder.blobs_fetched();
            pull(route, &Image::of(route), when);
            let fetched = stage.larder.blobs_fetched() - before;
            assert_eq!(
                fetched > 0,
                when == When::Cold,
                "{client} by {route}, {when:?}: {fetched} blobs came from upstream"
            );
        }
    }
    assert_eq!(stage.simulator().violations(), Vec::<String>::new(), "what ACR would have refused");
    assert_eq!(stage.larder.metric("larder_digest_failures_total", ""), 0);
    for route in routes {
        fs::write(passed(client, route), "").unwrap();
    }
}

/// The routes of a client's rows, those over https left out.
pub(crate) fn routes(client: &str) -> Vec<&'static str> {
    routes_of(client, false)
}

pub(crate) fn routes_over_https(client: &str) -> Vec<&'static str> {
    routes_of(client, true)
}

fn routes_of(client: &str, https: bool) -> Vec<&'static str> {
    let rows = ROWS.iter().filter(|row| row.client == client && row.route.starts_with("https") == https);
    let routes: Vec<_> = rows.map(|row| row.route).collect();
    assert!(!routes.is_empty(), "no row is for {client}");
    routes
}

/// Where a run leaves word that it succeeded, for the page.
pub(crate) fn passed(client: &str, route: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients");
    fs::create_dir_all(&folder).unwrap();
    folder.join(format!("{client} by {route}"))
}
