use super::*;
use crate::config::CredentialSettings;
use crate::upstream::testing::{errors, password, reply, settings, upstream};

/// A body in memory, in pieces, that can or cannot go twice.
struct Pieces {
    all: Vec<&'static str>,
    next: usize,
    again: bool,
}

impl Pieces {
    fn of(all: &[&'static str], again: bool) -> Self {
        Self { all: all.to_vec(), next: 0, again }
    }
}

impl UploadSource for Pieces {
    type Error = std::convert::Infallible;

    fn length(&self) -> Option<u64> {
        None
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Self::Error> {
        let piece = self.all.get(self.next).map(|piece| Bytes::from_static(piece.as_bytes()));
        self.next += 1;
        Ok(piece)
    }

    async fn rewind(&mut self) -> bool {
        let possible = self.again || self.next == 0;
        self.next = 0;
        possible
    }
}

async fn go_on(upstream: &Upstream, location: &str, step: UploadStep, again: bool) -> Result<UploadAnswer, String> {
    let (headers, mut body) = (BodyHeaders::default(), Pieces::of(&["one ", "two"], again));
    let answer = upstream.continue_upload(&name("a"), location, &step, &headers, &mut body).await;
    answer.map_err(|error| match error {
        UploadError::Upstream(error, range) => format!("{error} {:?} {range:?}", error.kind()),
        UploadError::Source(never) => match never {},
    })
}

#[tokio::test]
async fn another_hosts_session_gets_the_query_as_it_was_and_never_the_credential() {
    let elsewhere = Server::start(|asked| match asked.method.as_str() {
        "PATCH" => reply(202, &[("location", "?z=1&_state=b%2Bc&a=2"), ("range", "0-6")], ""),
        _ => reply(201, &[], ""),
    })
    .await;
    let there = format!("{}/up/1?z=1&_state=a%2Bb", elsewhere.url());
    let location = there.clone();
    let server = Server::start(move |asked| {
        let realm = format!("http://{}/token", asked.header("host").unwrap());
        match (asked.target.as_str(), asked.header("authorization")) {
            (target, _) if target.starts_with("/token") => reply(200, &[], r#"{"token":"abc"}"#),
            (_, None) => reply(401, &[("www-authenticate", &challenge(&realm, None))], ""),
            _ => reply(202, &[("location", &location)], ""),
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (upstream, _) = upstream(&settings(&server.url(), password(folder.path(), "secret")));
    let mut body = Pieces::of(&[], true);
    let start = upstream.start_upload(&name("a"), &UploadStart::default(), &BodyHeaders::default(), &mut body).await;
    let UploadAnswer::Session(session) = start.unwrap() else { panic!() };
    assert_eq!(session.location, there);
    assert_eq!(server.count("scope=repository%3Aa%3Apull%2Cpush"), 1, "{:?}", server.asked());
    let UploadAnswer::Session(session) = go_on(&upstream, &session.location, UploadStep::Chunk, true).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(session.range.as_deref(), Some("0-6"));
    go_on(&upstream, &session.location, UploadStep::End("sha256:ab".into()), true).await.unwrap();
    let asked = elsewhere.asked();
    assert_eq!(asked[0].body, "one two");
    assert_eq!(asked[1].target, "/up/1?z=1&_state=b%2Bc&a=2&digest=sha256:ab");
    assert!(asked.iter().all(|asked| asked.header("authorization").is_none()), "{asked:?}");
}

#[tokio::test]
async fn the_authorization_is_there_before_the_body() {
    for again in [true, false] {
        let server = Server::start(move |asked| {
            let realm = format!("http://{}/token", asked.header("host").unwrap());
            let challenge = challenge(&realm, Some("repository:a:pull,push"));
            let authorization = asked.header("authorization").unwrap_or_default();
            match asked.target.as_str() {
                target if target.starts_with("/token") => reply(200, &[], r#"{"token":"abc"}"#),
                "/v2/" => reply(401, &[("www-authenticate", &challenge)], ""),
                _ if asked.body.is_empty() || authorization.is_empty() => reply(500, &[], "unauthorized body"),
                _ => reply(401, &[("www-authenticate", &challenge)], errors("UNAUTHORIZED", "no")),
            }
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let (upstream, _) = upstream(&settings(&server.url(), password(folder.path(), "secret")));
        let session = format!("{}/v2/a/blobs/uploads/1", server.url());
        // A token that has just been fetched is refused for good.
        let error = go_on(&upstream, &session, UploadStep::Chunk, again).await.unwrap_err();
        assert!(error.contains("RepositoryRefused"), "{error}");
        assert_eq!(server.count("PATCH"), 1);
        assert_eq!(server.count("GET /v2/"), 1, "asked how it wants to be asked, before any body");
    }
}

#[tokio::test]
async fn an_upstream_without_logins_is_asked_about_them_once() {
    let server = Server::start(|asked| match asked.target.as_str() {
        "/v2/" => reply(200, &[], "{}"),
        _ => reply(202, &[("location", "/v2/a/blobs/uploads/1?_state=x")], ""),
    })
    .await;
    let (upstream, metrics) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    for _ in 0..3 {
        let session = format!("{}/v2/a/blobs/uploads/1", server.url());
        go_on(&upstream, &session, UploadStep::Chunk, false).await.unwrap();
    }
    assert_eq!((server.count("GET /v2/"), server.count("PATCH")), (1, 3));
    assert_eq!(metrics.upstream_sent_bytes.with_label_values(&["test.registry"]).get(), 21);
}

#[tokio::test]
async fn a_refusal_says_how_far_the_upload_has_come() {
    let server = Server::start(|asked| match asked.target.as_str() {
        "/v2/" => reply(200, &[], "{}"),
        _ => reply(416, &[("range", "0-41")], errors("BLOB_UPLOAD_RANGE_INVALID", "out of order")),
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let session = format!("{}/v2/a/blobs/uploads/1", server.url());
    let error = go_on(&upstream, &session, UploadStep::Chunk, false).await.unwrap_err();
    assert!(error.contains("BLOB_UPLOAD_RANGE_INVALID") && error.ends_with("Some(\"0-41\")"), "{error}");
}

#[tokio::test]
async fn a_limit_of_what_stands_before_the_registry_is_no_outage() {
    let server = Server::start(|asked| match asked.target.as_str() {
        "/v2/" => reply(200, &[], "{}"),
        _ => crate::upstream::testing::bare(413, &[("content-type", "text/html")], "<h1>413</h1>"),
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let session = format!("{}/v2/a/blobs/uploads/1", server.url());
    let error = go_on(&upstream, &session, UploadStep::Chunk, false).await.unwrap_err();
    assert!(error.contains("SIZE_INVALID") && error.contains("413"), "{error}");
}
