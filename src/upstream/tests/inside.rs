//! What an upstream leads to: its own kind of network, the public one, and what the operator has named. Nothing of this dials an
//! address that does not belong to this machine: where it should not be dialled, the name's lookups and listeners count.

use super::*;
use crate::config::{CredentialSettings, Limits, UpstreamSettings};
use crate::telemetry::Metrics;
use crate::upstream::testing::{Reply, Server, bare, environment, errors, reply, settings};
use crate::upstream::transport::network::Network;
use crate::upstream::transport::resolve::Resolver;
use http::Method;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const CONTENT: &[u8] = b"0123456789";

/// Runs the test of this name in a network of its own, where nothing leads anywhere but to itself. `true` within it, and where
/// the system permits none: what is refused is dialled nowhere anyway.
fn alone(test: &str) -> bool {
    const MARK: &str = "TEST_IN_A_NETWORK_OF_ITS_OWN";
    if cfg!(not(target_os = "linux")) || std::env::var_os(MARK).is_some() {
        return true;
    }
    let unshared = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--net",
            "sh",
            "-c",
            &format!("ip link set lo up && {script}"),
            "sh",
        ]);
        command
    };
    if !unshared("true").output().is_ok_and(|output| output.status.success()) {
        return true;
    }
    let mut again = unshared("exec \"$@\"");
    again.arg(std::env::current_exe().unwrap()).args(["--exact", &format!("upstream::tests::inside::{test}")]);
    let output = again.env(MARK, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// An upstream that looks names up here.
fn upstream(settings: &UpstreamSettings, names: &[(&str, &[&str])]) -> Upstream {
    let names: HashMap<String, Vec<SocketAddr>> = names
        .iter()
        .map(|(name, addresses)| {
            let addresses = addresses.iter().map(|address| (address.parse::<IpAddr>().unwrap(), 0).into());
            ((*name).to_owned(), addresses.collect())
        })
        .collect();
    let resolver = Resolver::with(move |name| {
        names.get(&name.to_ascii_lowercase()).cloned().ok_or_else(|| io::Error::other("no such name"))
    });
    let metrics = Arc::new(Metrics::new());
    let mut settings = settings.clone();
    settings.connect_timeout = Duration::from_secs(2);
    Upstream::in_network(&settings, &Limits::default(), metrics, &environment(), &Network::of(resolver.clone()))
        .unwrap()
}

fn anonymous(url: &str) -> UpstreamSettings {
    settings(url, CredentialSettings::Anonymous)
}

/// A registry that leads to `location`, whatever is asked.
async fn leading(location: String) -> Server {
    Server::start(move |_| reply(307, &[("location", &location)], "")).await
}

#[tokio::test]
async fn a_redirect_into_another_kind_of_network_is_not_followed() {
    if !alone("a_redirect_into_another_kind_of_network_is_not_followed") {
        return;
    }
    let names: [(&str, &[&str]); 3] = [
        ("metadata.example", &["169.254.169.254"]),
        ("both.example", &["192.0.2.1", "10.0.0.1"]),
        ("six.example", &["fe80::1"]),
    ];
    for target in [
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://192.168.1.1:8080/",
        "http://100.64.0.1/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:a00:1::]/",
        "http://224.0.0.1/",
        "http://METADATA.example/",
        "http://both.example/",
        "http://six.example/",
    ] {
        let server = leading(target.to_owned()).await;
        let upstream = upstream(&anonymous(&server.url()), &names);
        let (repository, digest) = (name("a"), blob(CONTENT));
        for error in [
            upstream.get_blob(&repository, &digest, None).await.map(drop).unwrap_err(),
            upstream.head_blob(&repository, &digest).await.map(drop).unwrap_err(),
            manifest(&upstream, "a").await.map(drop).unwrap_err(),
        ] {
            let text = error.to_string();
            assert_eq!(error.kind(), &ErrorKind::Foreign, "{target}: {text}");
            assert!(text.contains("not dialled") && text.contains("data_hosts of upstream"), "{target}: {text}");
        }
    }
}

#[tokio::test]
async fn where_the_upstream_itself_is_it_may_lead() {
    let storage = Server::start(|_| bare(200, &[], CONTENT)).await;
    let port = storage.address.port();
    for (target, names) in [
        (storage.url(), &[][..]),
        (format!("http://STORAGE.example:{port}/"), &[("storage.example", &["127.0.0.1"][..])]),
        (format!("http://[::ffff:127.0.0.1]:{port}/"), &[]),
    ] {
        let server = leading(target.clone()).await;
        let upstream = upstream(&anonymous(&server.url()), names);
        let whole = upstream.get_blob(&name("a"), &blob(CONTENT), None).await;
        assert_eq!(read(whole.unwrap()).await.unwrap(), CONTENT, "{target}");
    }
}

/// The upstream's name has an address of this machine, which is taken for a public one by nobody but this test: it is asked through
/// a proxy, so that where it is, is not known.
async fn away(
    data_hosts: &[&str],
    token_realms: &[&str],
    script: impl Fn(&str) -> Reply + Send + Sync + 'static,
) -> (Server, Upstream) {
    let proxy = Server::start(move |asked| script(&asked.target)).await;
    let mut settings = anonymous("http://registry.example");
    settings.data_hosts = data_hosts.iter().map(|host| (*host).to_owned()).collect();
    settings.token_realms = token_realms.iter().map(|host| (*host).to_owned()).collect();
    let environment = environment().with("HTTP_PROXY", proxy.url()).with("NO_PROXY", "127.0.0.1,storage.example");
    let resolver = Resolver::with(|_| Ok(vec![([127, 0, 0, 1], 0).into()]));
    let metrics = Arc::new(Metrics::new());
    let made =
        Upstream::in_network(&settings, &Limits::default(), metrics, &environment, &Network::of(resolver.clone()));
    (proxy, made.unwrap())
}

#[tokio::test]
async fn this_machine_is_not_asked_for_an_upstream_elsewhere_unless_it_is_named() {
    let storage = Server::start(|_| bare(200, &[], CONTENT)).await;
    let port = storage.address.port();
    for host in ["127.0.0.1", "storage.example"] {
        let location = format!("http://{host}:{port}/x");
        let lead = move |_: &str| reply(307, &[("location", &location)], "");
        let (_proxy, upstream) = away(&[], &[host], lead.clone()).await;
        let error = upstream.get_blob(&name("a"), &blob(CONTENT), None).await.unwrap_err();
        assert!(error.to_string().contains("data_hosts"), "{error}");
        assert_eq!(storage.asked().len(), 0, "a realm is no data host");
        for named in [host.to_owned(), format!("{host}:{port}")] {
            let (_proxy, upstream) = away(&[&named], &[], lead.clone()).await;
            let whole = upstream.get_blob(&name("a"), &blob(CONTENT), None).await.unwrap();
            assert_eq!(read(whole).await.unwrap(), CONTENT, "{named}");
        }
        let (_proxy, upstream) = away(&["storage.example:1"], &[], lead).await;
        upstream.get_blob(&name("a"), &blob(CONTENT), None).await.unwrap_err();
        assert_eq!(storage.asked().len(), 2, "{host}");
        storage.forget();
    }
}

#[tokio::test]
async fn what_a_proxy_would_look_up_is_judged_by_its_name_and_literal_address() {
    if !alone("what_a_proxy_would_look_up_is_judged_by_its_name_and_literal_address") {
        return;
    }
    for target in [
        "http://127.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://localhost./",
        "http://metadata.google.internal/",
    ] {
        let lead = move |asked: &str| {
            if asked.starts_with("http://registry.example/") {
                reply(307, &[("location", target)], "")
            } else {
                bare(200, &[], CONTENT)
            }
        };
        let (proxy, upstream) = away(&[], &[], lead).await;
        let error = upstream.get_blob(&name("a"), &blob(CONTENT), None).await.unwrap_err();
        assert!(error.to_string().contains("data_hosts"), "{target}: {error}");
        assert_eq!(proxy.asked().len(), proxy.count("http://registry.example/"), "{target}");
    }
}

#[tokio::test]
async fn a_chain_is_judged_at_every_hop() {
    if !alone("a_chain_is_judged_at_every_hop") {
        return;
    }
    let server = Server::start(|asked| match asked.target.as_str() {
        "/next" => bare(302, &[("location", "http://169.254.169.254/")], ""),
        _ => reply(307, &[("location", "/next")], ""),
    })
    .await;
    let upstream = upstream(&anonymous(&server.url()), &[]);
    let error = upstream.get_blob(&name("a"), &blob(CONTENT), None).await.unwrap_err();
    assert!(error.to_string().contains("169.254.169.254") && error.to_string().contains("data_hosts"), "{error}");
}

#[tokio::test]
async fn a_token_service_inside_is_asked_only_where_it_is_named() {
    let realm = Server::start(|_| reply(200, &[], r#"{"token":"t"}"#)).await;
    let challenge = challenge(&format!("{}/token", realm.url()), None);
    let script = move |_: &str| reply(401, &[("www-authenticate", &challenge)], errors("UNAUTHORIZED", "no"));
    let (_proxy, upstream) = away(&["127.0.0.1"], &[], script.clone()).await;
    let error = manifest(&upstream, "a").await.unwrap_err();
    assert!(error.to_string().contains("token_realms of upstream"), "{error}");
    assert_eq!(realm.asked().len(), 0);
    let (_proxy, upstream) = away(&[], &["127.0.0.1"], script).await;
    manifest(&upstream, "a").await.unwrap_err();
    assert!(!realm.asked().is_empty());
}

/// A body of ten bytes.
struct Bytes10(Option<Bytes>);
impl UploadSource for Bytes10 {
    type Error = ();
    fn length(&self) -> Option<u64> {
        Some(10)
    }
    async fn chunk(&mut self) -> Result<Option<Bytes>, ()> {
        Ok(self.0.take())
    }
    async fn rewind(&mut self) -> bool {
        self.0 = Some(Bytes::from_static(CONTENT));
        true
    }
}

#[tokio::test]
async fn an_upload_is_not_sent_inside() {
    if !alone("an_upload_is_not_sent_inside") {
        return;
    }
    let server = Server::start(|asked| match asked.method {
        Method::POST => reply(202, &[("location", "http://10.0.0.1/up")], ""),
        _ => reply(200, &[], ""),
    })
    .await;
    let upstream = upstream(&anonymous(&server.url()), &[]);
    for step in [UploadStep::Chunk, UploadStep::End(blob(CONTENT).to_string()), UploadStep::Status, UploadStep::Cancel]
    {
        // Each time by a larder that has asked the upstream nothing yet: it has restarted in between.
        let fresh = Upstream::clone(&upstream);
        let mut source = Bytes10(Some(Bytes::from_static(CONTENT)));
        let ended =
            fresh.continue_upload(&name("a"), "http://10.0.0.1/up", &step, &BodyHeaders::default(), &mut source).await;
        let Err(UploadError::Upstream(error, _)) = ended else { panic!("{step:?}") };
        assert!(error.to_string().contains("data_hosts of upstream"), "{step:?}: {error}");
    }
}

#[tokio::test]
async fn a_login_is_not_used_by_whoever_leads_back() {
    let folder = tempfile::tempdir().unwrap();
    let home = Arc::new(std::sync::Mutex::new(String::new()));
    let back = Arc::clone(&home);
    let elsewhere =
        Server::start(move |_| bare(307, &[("location", &format!("{}/v2/secret/x", back.lock().unwrap()))], "")).await;
    let away = elsewhere.url();
    let server = Server::start(move |asked| match asked.header("authorization") {
        None => reply(401, &[("www-authenticate", "Basic realm=\"x\"")], ""),
        Some(_) => reply(307, &[("location", &away)], ""),
    })
    .await;
    *home.lock().unwrap() = server.url();
    let settings = settings(&server.url(), crate::upstream::testing::password(folder.path(), "pw"));
    upstream(&settings, &[]).get_blob(&name("a"), &blob(CONTENT), None).await.unwrap_err();
    let secret: Vec<_> = server.asked().into_iter().filter(|asked| asked.target == "/v2/secret/x").collect();
    assert!(!secret.is_empty() && secret.iter().all(|asked| asked.header("authorization").is_none()));
}
