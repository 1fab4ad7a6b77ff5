//! What access costs: a manifest hit whose caller comes from an open network, or shows a password, beside the same without either.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Result;
use super::client::{Connection, Sink, load_with};
use super::content::Artifact;
use super::origin::Origin;
use super::peers::{LARDER, larder_that_lets_in};
use super::report::Figure;

const REQUESTS: usize = 32_768;
const NETWORKS: &str = "larder, 16 networks";
const USERS: &str = "larder, users_file";

pub(super) fn measure(rounds: usize) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let origin = Origin::start(0)?;
    let artifact = Artifact::fresh("bench/access", &[1024]);
    origin.add(&artifact);
    let file = folder.path().join("htpasswd");
    // Users enough that finding one counts.
    let hash = bcrypt::hash("a password of some length", 4)?;
    let users: Vec<String> = (0..1000).map(|number| format!("user-{number}:{hash}")).collect();
    fs::write(&file, users.join("\n"))?;
    // The network that lets the caller in is the last one.
    let networks = (1..16).map(|number| format!("\"10.{number}.0.0/16\"")).chain(["\"127.0.0.0/8\"".to_owned()]);
    let networks = format!("[{}]", networks.collect::<Vec<_>>().join(", "));
    let login = STANDARD.encode("user-500:a password of some length");
    let login = format!("Authorization: Basic {login}\r\n");
    let users_file = file.to_str().ok_or("a folder with a name that is not UTF-8")?;
    let start = |name: &str, variables: &[(&str, &str)]| {
        let place = folder.path().join(name);
        fs::create_dir_all(&place)?;
        larder_that_lets_in(&place, origin.port, variables)
    };
    let servers = [
        (LARDER, start("default", &[])?, ""),
        (NETWORKS, start("networks", &[("LARDER_ACCESS__OPEN_TO", &networks)])?, ""),
        (USERS, start("users", &[("LARDER_ACCESS__USERS_FILE", users_file)])?, &*login),
    ];
    let path = artifact.manifest_path();
    let mut figure = Figure::new("manifest GET by way of access", "CPU µs")
        .at_most_times(NETWORKS, LARDER, 1.05)
        .at_most_times(USERS, LARDER, 1.05);
    if Connection::open(servers[2].1.port)?.get(&path, Sink::Discard).is_ok() {
        return Err("the users file lets in a caller without a password".into());
    }
    for round in 0..=rounds {
        for (name, server, lines) in &servers {
            let before = server.cpu()?;
            load_with(server.port, &path, 32, REQUESTS, lines)
                .map_err(|error| format!("{name}: {error}\n{}", server.last_words()))?;
            #[expect(clippy::cast_precision_loss, reason = "thousands")]
            let sample = (server.cpu()? - before) * 1e6 / REQUESTS as f64;
            if round > 0 {
                figure.add(name, sample);
            }
        }
    }
    Ok(vec![figure])
}
