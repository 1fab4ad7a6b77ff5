use super::*;
use crate::upstream::testing::{Server, environment, reply};
use crate::upstream::transport::resolve::Resolver;
use http_body_util::BodyExt as _;

fn connector() -> Connector {
    let own = Origin::of(&Uri::from_static("http://registry.invalid")).unwrap();
    let border = Border::new("test", &own, &[], &[]);
    Connector::new("test", None, &environment(), Resolver::of_system(), border, Duration::from_secs(5)).unwrap()
}

#[test]
fn an_upstream_without_tls_needs_no_roots() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let environment = environment().with("SSL_CERT_FILE", &empty);
    let connector = |url: &str| {
        let own = Origin::of(&url.parse().unwrap()).unwrap();
        let border = Border::new("test", &own, &[], &[]);
        Connector::new("test", None, &environment, Resolver::of_system(), border, Duration::from_secs(5))
    };
    assert!(connector("http://test.invalid").is_ok());
    assert!(connector("https://test.invalid").is_err());
}

async fn send(pool: &Pool, outgoing: &Outgoing, origin: &Origin, share: ConnectionClass) -> Result<Head, Failure> {
    pool.send(outgoing, (origin, AddressScope::Anywhere), Turn { share, admit: &|| Ok(()), again: None }).await
}

/// `GET /x` at the server.
fn question(server: &Server) -> (Origin, Outgoing) {
    let url: Uri = format!("{}/x", server.url()).parse().unwrap();
    let origin = Origin::of(&url).unwrap();
    (origin, Outgoing { method: Method::GET, url, headers: HeaderMap::new(), body: Bytes::new() })
}

#[tokio::test]
async fn a_full_host_says_when_to_come_back_and_recovers() {
    let server = Server::start(|_| reply(200, &[], "0123")).await;
    let mut pool = Pool::new(connector(), 1, Duration::from_secs(5), again::LATEST);
    pool.wait = Duration::from_millis(50);
    let (origin, outgoing) = question(&server);
    let held = send(&pool, &outgoing, &origin, ConnectionClass::Download).await.unwrap();
    for share in [ConnectionClass::Download, ConnectionClass::Small] {
        let failure = send(&pool, &outgoing, &origin, share).await.err().unwrap();
        assert_eq!(failure.kind, ErrorKind::Throttled { retry_after: Some(pool.wait) });
        assert!(failure.reason.contains("upstream_connections"), "{}", failure.reason);
    }
    held.response.into_body().collect().await.unwrap();
    held.lease.give_back();
    assert!(!send(&pool, &outgoing, &origin, ConnectionClass::Small).await.unwrap().replaced);
}

#[tokio::test]
async fn what_may_not_be_sent_after_the_wait_is_not_and_takes_no_place() {
    let server = Server::start(|_| reply(200, &[], "0123")).await;
    let pool = Pool::new(connector(), 1, Duration::from_secs(5), again::LATEST);
    let (origin, outgoing) = question(&server);
    let refused = || Err(Failure::new(ErrorKind::Throttled { retry_after: None }, "another one was refused"));
    assert!(
        pool.send(
            &outgoing,
            (&origin, AddressScope::Anywhere),
            Turn { share: ConnectionClass::Small, admit: &refused, again: None }
        )
        .await
        .is_err()
    );
    assert!(pool.reserve((&origin, AddressScope::Anywhere), ConnectionClass::Upload, refused).await.is_err());
    assert_eq!(server.count("/x"), 0);
    assert!(send(&pool, &outgoing, &origin, ConnectionClass::Small).await.is_ok());
}

#[tokio::test]
async fn a_kept_connection_is_used_for_a_minute_and_not_after() {
    let server = Server::start(|_| reply(200, &[], "0123")).await;
    let pool = Pool::new(connector(), 2, Duration::from_secs(5), again::LATEST);
    let (origin, outgoing) = question(&server);
    for (age, kept) in [(IDLE.saturating_sub(Duration::from_secs(1)), true), (IDLE, false)] {
        let head = send(&pool, &outgoing, &origin, ConnectionClass::Small).await.unwrap();
        head.response.into_body().collect().await.unwrap();
        head.lease.give_back();
        tokio::time::pause();
        tokio::time::advance(age).await;
        // The clock stands still only while nobody waits for the network.
        tokio::time::resume();
        let connection = pool.host(&origin, AddressScope::Anywhere).take().await;
        assert_eq!(connection.is_some(), kept, "{age:?}");
    }
    assert!(pool.host(&origin, AddressScope::Anywhere).expire());
}

#[tokio::test]
async fn storage_hosts_that_came_and_went_are_forgotten() {
    let pool = Pool::new(connector(), 1, Duration::from_secs(5), again::LATEST);
    for number in 0..1000 {
        pool.host(
            &Origin { https: true, host: format!("s{number}.invalid"), port: 443 },
            AddressScope::Outside("data_hosts"),
        );
    }
    assert!(pool.hosts.lock().len() <= HOSTS);
}

#[tokio::test]
async fn few_questions_of_a_host_have_a_second_connection_at_once() {
    let server = Server::start_async(|_| std::future::pending()).await;
    let pool = Pool::new(connector(), 64, Duration::from_secs(5), again::SOONEST);
    let (origin, outgoing) = question(&server);
    let questions = (0..12).map(|_| async {
        let turn = Turn { share: ConnectionClass::Small, admit: &|| Ok(()), again: Some(&|| Some(outgoing.clone())) };
        pool.send(&outgoing, (&origin, AddressScope::Anywhere), turn).await.map(drop)
    });
    let all = async { futures(questions.collect()).await };
    assert!(tokio::time::timeout(Duration::from_millis(2500), all).await.is_err(), "nobody answers");
    assert_eq!(server.count("/x"), 12 + again::AT_ONCE);
}

/// Runs all of them at the same time, in this task.
async fn futures<F: Future<Output = Result<(), Failure>>>(all: Vec<F>) {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        all.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
