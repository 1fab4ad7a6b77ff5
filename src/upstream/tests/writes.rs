use super::super::testing::{Server, bare, errors, jwt, password, reply, settings, upstream};
use super::*;
use crate::config::CredentialSettings;

async fn put(upstream: &Upstream) -> Result<PutManifest, UpstreamError> {
    let content = Bytes::from_static(b"{ \"odd\" : 1 }");
    upstream.put_manifest(&name("a/b"), &tag("v1"), Some("application/x; charset=odd"), "tag=v2", content).await
}

#[tokio::test]
async fn a_manifest_goes_out_as_it_is_and_what_the_registry_says_comes_back() {
    let digest = blob(b"x").to_string();
    let said = digest.clone();
    let server = Server::start(move |_| {
        let mut created = reply(201, &[("docker-content-digest", &said), ("oci-subject", "sha256:s")], "");
        for tag in ["v2", "v3"] {
            created.headers_mut().append("oci-tag", tag.parse().unwrap());
        }
        created
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let said = put(&upstream).await.unwrap();
    assert_eq!(said.digest.unwrap().to_string(), digest);
    assert_eq!((said.subject.as_deref(), said.tags), (Some("sha256:s"), vec!["v2".to_owned(), "v3".to_owned()]));
    let asked = &server.asked()[0];
    assert_eq!((asked.method.as_str(), &*asked.target), ("PUT", "/v2/a/b/manifests/v1?tag=v2"));
    assert_eq!((asked.header("content-type"), &*asked.body), (Some("application/x; charset=odd"), "{ \"odd\" : 1 }"));
}

#[tokio::test]
async fn a_write_has_a_token_of_its_own_and_is_sent_again_after_a_401_only() {
    let server = Server::start(|asked| {
        if asked.target.starts_with("/token") {
            return bare(200, &[], format!("{{\"access_token\":\"{}\"}}", jwt("{}")));
        }
        let host = asked.header("host").unwrap();
        let authorized = asked.header("authorization").is_some();
        match (authorized, asked.method.as_str()) {
            (false, method) => {
                let actions = if method == "PUT" { "push,pull" } else { "delete" };
                let scope = format!("repository:a/b:{actions}");
                let line = challenge(&format!("http://{host}/token"), Some(&scope));
                reply(401, &[("www-authenticate", &line)], errors("UNAUTHORIZED", "who"))
            }
            (true, "PUT") => reply(201, &[], ""),
            (true, _) => reply(503, &[], ""),
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (upstream, _) = upstream(&settings(&server.url(), password(folder.path(), "pw")));
    put(&upstream).await.unwrap();
    assert_eq!(server.count("PUT /v2/a/b/manifests/v1"), 2, "without a token, and with one");
    assert_eq!(server.count("scope=repository%3Aa%2Fb%3Apull%2Cpush"), 1, "{:?}", paths(&server));
    let error = upstream.delete_blob(&name("a/b"), &blob(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::ServerError(503));
    assert!(error.may_have_happened());
    assert_eq!(server.count("DELETE"), 1, "what may have been done is not done twice");
    assert_eq!(server.count("scope=repository%3Aa%2Fb%3Adelete"), 1);
}

#[tokio::test]
async fn a_portal_and_a_redirect_have_taken_nothing() {
    for answer in [(200, "text/html"), (200, "text/plain"), (302, "text/plain")] {
        let server = Server::start(move |_| {
            bare(answer.0, &[("content-type", answer.1), ("location", "http://portal.example/")], "welcome")
        })
        .await;
        let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
        let error = put(&upstream).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Foreign, "{answer:?}");
        assert!(upstream.delete_manifest(&name("a/b"), &tag("v1")).await.is_err());
        assert_eq!(server.asked().len(), 2, "nothing was tried elsewhere, or again");
    }
}

#[tokio::test]
async fn what_a_manifest_lacks_is_read_from_every_error() {
    let (one, two) = (blob(b"1"), blob(b"2"));
    let body = format!(
        "{{\"errors\":[{{\"code\":\"MANIFEST_BLOB_UNKNOWN\",\"message\":\"m\",\"detail\":\"{one}\"}},\
         {{\"code\":\"MANIFEST_BLOB_UNKNOWN\",\"message\":\"m\",\"detail\":{{\"digest\":\"{two}\"}}}}]}}"
    );
    let server = Server::start(move |_| reply(400, &[], body.clone())).await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let error = put(&upstream).await.unwrap_err();
    let ErrorKind::Rejected { status: 400, about, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!(*about, [one, two]);
    assert!(!error.may_have_happened());
}
