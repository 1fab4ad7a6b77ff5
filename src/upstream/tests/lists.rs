use super::*;
use crate::config::CredentialSettings;
use crate::oci::MediaType;
use crate::upstream::testing::{Server, errors, reply, settings, upstream};

async fn list(upstream: &Upstream, page: Page) -> Result<FetchedList, UpstreamError> {
    upstream.get_list(ListRequest::Tags { repository: name("a/b"), page }).await
}

#[tokio::test]
async fn pages_follow_the_link() {
    let server = Server::start(|asked| {
        let next = "</v2/a/b/tags/list?last=v%2F1&n=2&orderby=>; rel=\"next\"";
        let body = r#"{"name":"a/b","tags":["v1"]}"#;
        if asked.target.contains("last=") {
            return reply(200, &[("content-type", "application/json; charset=utf-8")], body);
        }
        reply(200, &[("link", next)], body)
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let first = list(&upstream, Page::First).await.unwrap();
    let second = list(&upstream, Page::Next(first.next.clone().unwrap())).await.unwrap();
    assert_eq!(second.next, None);
    assert_eq!(second.media_type.unwrap().as_str(), "application/json");
    list(&upstream, Page::Query("n=2&last=x%20y".into())).await.unwrap();
    let targets: Vec<_> = server.asked().into_iter().map(|asked| asked.target).collect();
    assert_eq!(
        targets,
        ["/v2/a/b/tags/list?n=1000", "/v2/a/b/tags/list?last=v%2F1&n=2&orderby=", "/v2/a/b/tags/list?n=2&last=x%20y"]
    );
}

#[tokio::test]
async fn referrers_are_asked_for_by_type_and_say_what_was_filtered() {
    let server = Server::start(|_| {
        let kind = [("content-type", MediaType::OCI_INDEX), ("oci-filters-applied", "artifactType")];
        reply(200, &kind, r#"{"schemaVersion":2,"manifests":[]}"#)
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let digest = blob(b"x");
    let request =
        ListRequest::Referrers { repository: name("a"), digest, page: Page::Query("artifactType=x/y".into()) };
    let list = upstream.get_list(request).await.unwrap();
    assert_eq!(list.media_type.unwrap().as_str(), MediaType::OCI_INDEX);
    assert_eq!(list.filters_applied.as_deref(), Some("artifactType"));
    assert_eq!(server.asked()[0].target, format!("/v2/a/referrers/{digest}?artifactType=x/y"));
    assert_eq!(server.asked()[0].header("accept"), Some(MediaType::OCI_INDEX));
}

#[tokio::test]
async fn a_next_page_elsewhere_is_no_end_and_no_dial_out() {
    let server = Server::start(|_| reply(200, &[("link", "<http://evil.invalid/v2/x>; rel=\"next\"")], "{}")).await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let first = list(&upstream, Page::First).await.unwrap();
    assert!(first.lost && first.next.is_none() && first.own_next.is_none(), "{first:?}");
    for bad in ["http://evil.invalid/v2/x", "/oauth2/token", "//evil.invalid/v2/"] {
        list(&upstream, Page::Next(bad.into())).await.unwrap_err();
    }
    let bad = list(&upstream, Page::Query("a b\r\n".into())).await.unwrap_err();
    assert!(matches!(bad.kind(), ErrorKind::Rejected { status: 400, .. }), "{bad:?}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn the_scope_of_lists_is_read_from_the_challenge_and_remembered() {
    let server = Server::start(|asked| {
        let host = asked.header("host").unwrap();
        if asked.target.starts_with("/token") {
            return reply(200, &[], r#"{"token":"t"}"#);
        }
        if asked.header("authorization").is_some() {
            return reply(200, &[], "{}");
        }
        let scope = if asked.target.starts_with("/v2/_catalog") {
            "registry:catalog:*"
        } else {
            "repository:a/b:metadata_read"
        };
        reply(
            401,
            &[("www-authenticate", &challenge(&format!("http://{host}/token"), Some(scope)))],
            errors("UNAUTHORIZED", ""),
        )
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    list(&upstream, Page::First).await.unwrap();
    let other = ListRequest::Tags { repository: name("c"), page: Page::First };
    upstream.get_list(other).await.unwrap();
    upstream.get_list(ListRequest::Catalogue { page: Page::First }).await.unwrap();
    let scopes: Vec<_> =
        server.asked().into_iter().filter_map(|a| a.target.split_once("scope=").map(|s| s.1.to_owned())).collect();
    assert_eq!(
        scopes,
        ["repository%3Aa%2Fb%3Ametadata_read", "repository%3Ac%3Ametadata_read", "registry%3Acatalog%3A%2A"]
    );
}

#[tokio::test]
async fn a_page_is_bounded() {
    let server = Server::start(|_| reply(200, &[], vec![b' '; (8 << 20) + 1])).await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    assert_eq!(list(&upstream, Page::First).await.unwrap_err().kind(), &ErrorKind::TooLarge);
}
