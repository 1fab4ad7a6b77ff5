//! Under the registry's own name: references stay as they are. The name leads to larder, whose certificate `larder tls init` made, and
//! larder is told where the registry really is.

use std::fs;
use std::net::{IpAddr, TcpListener};
use std::path::Path;

use crate::larder::Larder;
use crate::process::{Folder, command, free_port, run};
use crate::simulator::{Options, Simulator};
use crate::stage::{Image, NAME};
use crate::world::World;

/// Where the name leads: an address of this machine that nobody else uses.
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 42));

#[test]
fn own_name_oras() {
    let folder = Folder::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let options = Options { tls: true, tls_names: vec![NAME.to_owned()], ..Options::public() };
    let simulator = runtime.block_on(Simulator::start(options));
    let image = Image::of("own-name");
    image.seed(&simulator);

    let home = folder.sub("larder");
    let tls = home.join("tls");
    let mut init = command(Path::new(env!("CARGO_BIN_EXE_larder")), &home);
    init.args(["tls", "init", "--dir"]).arg(&tls).arg(NAME);
    run(init, &home).ok();
    fs::write(home.join("registry.pem"), simulator.ca_pem().unwrap()).unwrap();
    let config = home.join("larder.toml");
    let (host, files) = (simulator.host(), tls.display());
    let text = format!(
        "[server.tls]\ncertificate_file = \"{files}/server.pem\"\nkey_file = \"{files}/server.key\"\n\
         [[upstream]]\nname = \"{NAME}\"\nca_file = \"registry.pem\"\nconnect = [\"{host}\"]\n"
    );
    fs::write(&config, text).unwrap();

    // Without the right to the port of https, one call of ORAS can be led elsewhere.
    let port = if TcpListener::bind((HERE, 443)).is_ok() { 443 } else { free_port() };
    let lead = if port == 443 { String::new() } else { format!("--resolve {NAME}:443:{HERE}:{port} ") };
    let listen = format!("tls://{HERE}:{port}");
    let arguments = ["--config", config.to_str().unwrap(), "--listen", &listen].map(str::to_owned);
    let larder = Larder::start(&folder, &arguments);

    let world = World::new(&folder, &folder.sub("world/own-name"), &[(HERE, NAME)]);
    let pull = |into: &str, trust: &str| {
        let place = folder.sub(into);
        let line = format!("cd {} && oras pull {lead}{trust}{NAME}/{}", place.display(), image.reference());
        (world.types(&line), place.join("layer.tar"))
    };
    let (refused, _) = pull("ignorant", "");
    assert!(!refused.status.success() && refused.to_string().contains("certificate"), "{refused}");
    assert_eq!(larder.blobs_fetched(), 0);

    let trust = format!("--ca-file {files}/ca.pem ");
    let (cold, layer) = pull("cold", &trust);
    cold.ok();
    assert!(fs::read(layer).unwrap() == image.layer);
    let fetched = larder.blobs_fetched();
    assert!(fetched > 0);
    let (warm, layer) = pull("warm", &trust);
    warm.ok();
    assert!(fs::read(layer).unwrap() == image.layer);
    assert_eq!(larder.blobs_fetched(), fetched, "the second pull asks upstream for no blob");
}
