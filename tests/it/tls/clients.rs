use super::harness::simulator::Options;
use super::harness::tls::{Authority, Dialer, Pair};
use super::harness::{Acr, Setup};
use super::seed;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use larder::config::{Limits, Listen, TlsSettings};
use larder::server::{Body, Drain, Handler, Peer, Server, Tls};
use larder::telemetry::Metrics;
use std::net::SocketAddr;
use std::sync::Arc;

/// Says whom it takes the client for.
#[derive(Clone)]
struct WhoAmI;

impl Handler for WhoAmI {
    async fn handle(&self, _: Request<Incoming>, peer: Arc<Peer>) -> Response<Body> {
        let text = format!("{:?} {:?}", peer.client, peer.server_name.as_deref());
        Response::new(Body::full(Bytes::from(text)))
    }
}

/// A server with these files that says to whom it speaks.
async fn who_am_i(settings: &TlsSettings) -> (SocketAddr, larder::server::DrainTrigger) {
    let tls = Tls::load(settings, Arc::new(Metrics::new())).unwrap();
    let listen = [Listen::Tls("127.0.0.1:0".parse().unwrap())];
    let server = Server::bind_with(&listen, &Limits::default(), Some(tls)).await.unwrap();
    let address = server.addresses()[0].address().unwrap();
    let (trigger, drain) = Drain::new();
    tokio::spawn(server.serve(WhoAmI, drain));
    (address, trigger)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_certificate_names_the_client_and_none_is_demanded() {
    let acr = Acr::start(Options::public()).await;
    let (ours, theirs, clients) = (Authority::new("server"), Authority::new("foreign"), Authority::new("clients"));
    let setup = Setup::of(&acr).tls(&ours.issue(&["localhost"])).client_ca(&clients);
    let (address, _trigger) = who_am_i(setup.settings.server.tls.as_ref().unwrap()).await;
    for version in rustls::ALL_VERSIONS {
        let dialer = Dialer::trusting(&ours).version(version);
        let text = async |dialer: &Dialer| Some(dialer.get(address, "localhost", "/").await.ok()?.into_body());
        assert_eq!(text(&dialer).await.unwrap(), "None Some(\"localhost\")");
        let ci = dialer.clone().presenting(&clients.client("ci"));
        // Again: no session of before stands in for the certificate.
        for _ in 0..2 {
            assert_eq!(text(&ci).await.unwrap(), "Some(\"ci\") Some(\"localhost\")");
        }
        let machine = clients.issue_with(&["build.example"], |_| {});
        assert_eq!(
            text(&dialer.clone().presenting(&machine)).await.unwrap(),
            "Some(\"build.example\") Some(\"localhost\")"
        );
        for refused in [theirs.client("ci"), old(&clients)] {
            assert_eq!(
                text(&dialer.clone().presenting(&refused)).await,
                None,
                "what cannot be verified ends the handshake"
            );
        }
    }
}

fn old(clients: &Authority) -> Pair {
    clients.issue_with(&["build.example"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn without_client_ca_file_no_certificate_is_asked_for() {
    let acr = Acr::start(Options::public()).await;
    seed(&acr, 10);
    let ours = Authority::new("server");
    let setup = Setup::of(&acr).tls(&ours.issue(&["localhost"]));
    let (address, _trigger) = who_am_i(setup.settings.server.tls.as_ref().unwrap()).await;
    let dialer = Dialer::trusting(&ours).presenting(&Authority::new("clients").client("ci"));
    assert_eq!(dialer.get(address, "localhost", "/").await.unwrap().into_body(), "None Some(\"localhost\")");
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_certificate_names_is_let_in_and_known_to_rules() {
    let acr = Acr::start(Options::public()).await;
    seed(&acr, 10);
    let (ours, clients) = (Authority::new("server"), Authority::new("clients"));
    let setup = Setup::of(&acr).tls(&ours.issue(&["localhost"])).client_ca(&clients).with(|settings| {
        settings.access.open_to.clear();
        settings.access.rules = vec![larder::config::AccessRule {
            users: Some(vec!["ci".to_owned()]),
            networks: None,
            repositories: vec![larder::oci::RepositoryPattern::new("**")],
            allow: vec![larder::config::Right::Pull],
        }];
    });
    let larder = setup.start().await;
    let status = async |dialer: Dialer, path: &str| {
        dialer.get(larder.address, "localhost", path).await.unwrap().status().as_u16()
    };
    let dialer = Dialer::trusting(&ours);
    let manifest = super::TAG;
    assert_eq!(status(dialer.clone().presenting(&clients.client("ci")), manifest).await, 200);
    assert_eq!(status(dialer.clone().presenting(&clients.client("bob")), "/v2/").await, 200);
    assert_eq!(status(dialer.clone().presenting(&clients.client("bob")), manifest).await, 403, "no rule names him");
    assert_eq!(status(dialer, "/v2/").await, 403, "no certificate, no network, and nothing else to log in with");
}
