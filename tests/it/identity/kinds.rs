use super::*;
use crate::harness::simulator::entra::{ArcServer, IDENTITY_HEADER, certificate};

#[tokio::test(flavor = "multi_thread")]
async fn a_service_principal_pulls_with_its_secret() {
    let world = World::start().await;
    let larder = world.by_secret().0.start().await;
    pulls(&world, &larder).await;
    let asked = world.entra.log();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].target, "/contoso/oauth2/v2.0/token");
    assert_eq!(asked[0].field("grant_type"), Some("client_credentials"));
    assert_eq!(asked[0].field("scope"), Some("https://containerregistry.azure.net/.default"));
    let series = "larder_token_requests_total{kind=\"entra-secret\",result=\"ok\",upstream=\"myacr.azurecr.io\"}";
    assert_eq!(larder.metric(series).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_principal_pulls_with_its_certificate_alone_or_with_a_chain() {
    let world = World::start().await;
    let (pem, registered) = certificate("larder");
    let (other, _) = certificate("issuer");
    let issuer = &other[other.find("-----BEGIN CERTIFICATE").unwrap()..];
    world.entra.turn(|k| k.applications = vec![Application::with_certificate(APP, registered)]);
    for (pem, chain) in [(pem.clone(), None), (format!("{pem}{issuer}"), Some(2))] {
        let setup = Setup::of(&world.acr);
        let file = setup.file("app.pem", &pem);
        let larder = setup.credential(world.principal(PrincipalProof::Certificate(file))).start().await;
        pulls(&world, &larder).await;
        let asked = world.entra.log();
        let assertion = asked.last().unwrap().field("client_assertion").unwrap().to_owned();
        let header = part(&assertion, 0);
        assert_eq!(header["alg"], "RS256");
        assert_eq!(header["x5c"].as_array().map(Vec::len), chain);
        let claims = part(&assertion, 1);
        assert_eq!(claims["aud"], format!("{}/contoso/oauth2/v2.0/token", world.entra.url()));
        assert!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap() <= 300);
    }
}

fn part(jwt: &str, at: usize) -> serde_json::Value {
    use base64::Engine as _;
    let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(jwt.split('.').nth(at).unwrap()).unwrap();
    serde_json::from_slice(&part).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_pulls_with_its_service_accounts_token() {
    let world = World::start().await;
    let (setup, _) = world.by_workload();
    pulls(&world, &setup.start().await).await;
    assert_eq!(world.entra.count(|asked| asked.field("client_assertion").is_some()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_pulls_as_each_of_its_identities() {
    let world = World::start().await;
    world.entra.turn(|k| k.identities = vec![identity("mi-1", true), identity("mi-2", false)]);
    let cases = [
        (AssignedIdentity::System, None),
        (AssignedIdentity::ClientId("mi-2".into()), Some(("client_id", "mi-2"))),
        (AssignedIdentity::ObjectId("object-of-mi-2".into()), Some(("object_id", "object-of-mi-2"))),
        (AssignedIdentity::ResourceId(RESOURCE_ID.into()), Some(("msi_res_id", RESOURCE_ID))),
    ];
    for (identity, named) in cases {
        let larder = world.setup(world.managed(identity)).start().await;
        pulls(&world, &larder).await;
        let asked = world.entra.log().pop().unwrap();
        assert_eq!((asked.service, asked.field("api-version")), ("imds", Some("2019-08-01")));
        assert_eq!(asked.fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).nth(2), named);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_pulls_by_the_endpoint_of_its_platform_and_names_a_resource_as_that_wants() {
    let world = World::start().await;
    world.entra.turn(|k| k.identities = vec![identity("mi-1", true), identity("mi-2", false)]);
    for identity in [AssignedIdentity::System, AssignedIdentity::ResourceId(RESOURCE_ID.into())] {
        let credential = managed(identity.clone(), None);
        let setup = world
            .setup(credential)
            .variable("IDENTITY_ENDPOINT", world.entra.app_service())
            .variable("IDENTITY_HEADER", IDENTITY_HEADER);
        pulls(&world, &setup.start().await).await;
        let asked = world.entra.log().pop().unwrap();
        assert_eq!(asked.service, "app-service");
        let by_resource = matches!(identity, AssignedIdentity::ResourceId(_));
        assert_eq!(asked.field("mi_res_id"), by_resource.then_some(RESOURCE_ID));
    }
}

/// The agent's folder is the real one: only what is below it is ever read. Where this user may not make it, the challenge's file is
/// refused by its place instead.
#[tokio::test(flavor = "multi_thread")]
async fn what_asks_for_another_file_than_arcs_gets_none() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("x.key");
    std::fs::write(&secret, "hunter2").unwrap();
    for lie in
        [secret.display().to_string(), "/etc/passwd".into(), "/var/opt/azcmagent/tokens/../../../../etc/x.key".into()]
    {
        world.entra.turn(|k| {
            k.arc = Some(ArcServer { folder: folder.path().to_owned(), lies: Some(lie.clone()) });
        });
        let credential = managed(AssignedIdentity::System, None);
        let setup = world
            .setup(credential)
            .variable("IDENTITY_ENDPOINT", format!("{}/metadata/identity/oauth2/token", world.entra.url()))
            .variable("IMDS_ENDPOINT", world.entra.url());
        let (status, message) = refusal(&setup.start().await).await;
        assert_eq!(status, 403, "{message}");
        assert!(message.contains("/var/opt/azcmagent/tokens") && message.contains("himds"), "{message}");
        assert!(world.entra.log().iter().all(|asked| asked.headers.get("authorization").is_none()));
    }
}
