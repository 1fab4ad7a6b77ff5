use super::super::testing::{Server, reply, settings, upstream};
use super::*;
use crate::config::CredentialSettings;
use http::HeaderMap;

#[tokio::test]
async fn every_request_names_those_whom_it_has_passed() {
    let server = Server::start(|_| reply(200, &[("content-type", OCI)], MANIFEST)).await;
    let (parent, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let (child, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let via = |number: usize| server.asked()[number].header("via").unwrap().to_owned();
    manifest(&child, "a").await.unwrap();
    let passed = HeaderMap::from_iter([(http::header::VIA, via(0).parse().unwrap())]);
    assert!(parent.note_passers(&passed));
    manifest(&parent, "a").await.unwrap();
    assert!(via(0).starts_with("1.1 larder-") && !via(0).contains(','), "{}", via(0));
    assert!(via(1).starts_with(&format!("{}, 1.1 larder-", via(0))), "{}", via(1));
    let back = HeaderMap::from_iter([(http::header::VIA, via(1).parse().unwrap())]);
    assert!(!child.note_passers(&back), "the child's own request has come back");
}
