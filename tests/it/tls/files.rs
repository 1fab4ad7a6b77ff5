use super::harness::simulator::Options;
use super::harness::tls::Authority;
use super::harness::{Acr, Process, Setup, config_of, until_async};
use super::{TAG, seed};
use std::fs;

/// The whole program: the files behind a folder that is swapped, as Kubernetes does it.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_takes_over_a_certificate_that_is_swapped_and_keeps_it_when_the_next_is_broken() {
    use super::harness::tls::Dialer;
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr, 100);
    let setup = Setup::of(&acr);
    let root = setup.folder.path().to_owned();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let put = |name: &str, certificate: &str, key: &str| {
        setup.file(&format!("{name}/tls.crt"), certificate);
        setup.file(&format!("{name}/tls.key"), key);
        let _ = fs::remove_file(root.join("next"));
        std::os::unix::fs::symlink(name, root.join("next")).unwrap();
        fs::rename(root.join("next"), root.join("data")).unwrap();
    };
    let pair = first.issue(&["localhost"]);
    put("one", &pair.certificate, &pair.key);
    let tls = "[server.tls]\ncertificate_file = \"data/tls.crt\"\nkey_file = \"data/tls.key\"\n";
    let file = setup.file("larder.toml", &format!("{tls}{}", config_of(&acr.url())));
    let process = Process::start(&setup, &["--config", file.to_str().unwrap()]).await;
    let get = async |authority: &Authority| Dialer::trusting(authority).get(process.address, "localhost", TAG).await;
    assert_eq!(get(&first).await.unwrap().body(), &artifact.manifest);

    let pair = second.issue(&["localhost"]);
    put("two", &pair.certificate, &pair.key);
    until_async("the second certificate is presented", async || get(&second).await.is_ok()).await;
    put("three", &pair.certificate, "no key");
    until_async("that it cannot be used is said", async || {
        process.stderr().contains("the certificate before stays in use")
    })
    .await;
    assert!(process.stderr().contains("holds no private key"), "{}", process.stderr());
    assert_eq!(get(&second).await.unwrap().body(), &artifact.manifest);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_larder"));
    command.env_clear().env("HOME", setup.folder.path());
    let output = command.args(["status", "--config"]).arg(&file).arg("--store").arg(setup.store()).output().unwrap();
    let status = String::from_utf8(output.stdout).unwrap();
    assert!(status.contains("THE NEW CERTIFICATE IS NOT USED") && status.contains("localhost until"), "{status}");
}
