use super::*;
use crate::harness::simulator::entra::{Mood, certificate};
use std::time::Duration;

/// What a larder of its own is answered with.
async fn refused(setup: &Setup) -> (u16, String) {
    let larder = setup.start().await;
    let answer = refusal(&larder).await;
    larder.stop().await;
    answer
}

async fn denied(setup: &Setup, parts: &[&str]) {
    let (status, message) = refused(setup).await;
    assert_eq!(status, 403, "{message}");
    for part in parts {
        assert!(message.contains(part), "{part} is missing: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_entra_refuses_is_denied_with_identity_and_remedy() {
    let world = World::start().await;
    let (setup, file) = world.by_secret();
    setup.file("secret", "wrong");
    denied(&setup, &["AADSTS7000215", APP, "new one", &file.display().to_string()]).await;
    setup.file("secret", "s3cret");
    let with = |change: &dyn Fn(&mut String, &mut String)| {
        setup.clone().upstream(|upstream| {
            let CredentialSettings::ServicePrincipal(it) = &mut upstream.credential else { panic!() };
            change(&mut it.tenant_id, &mut it.client_id);
        })
    };
    denied(&with(&|tenant, _| "fabrikam".clone_into(tenant)), &["AADSTS90002", "check tenant_id", "fabrikam"]).await;
    denied(&with(&|_, client| "other-app".clone_into(client)), &["AADSTS700016", "other-app", "check client_id"]).await;
    world.entra.turn(|k| {
        k.lasting = Some(Mood::Error(400, 53_003, "Access has been blocked by Conditional Access policies."));
    });
    denied(&setup, &["AADSTS53003", "Conditional Access policy", "contoso"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_registered_or_not_there_is_named() {
    let world = World::start().await;
    let (pem, _) = certificate("larder");
    let (_, other) = certificate("other");
    world.entra.turn(|k| k.applications = vec![Application::with_certificate(APP, other)]);
    let setup = Setup::of(&world.acr);
    let file = setup.file("app.pem", &pem);
    let setup = setup.credential(world.principal(PrincipalProof::Certificate(file.clone())));
    denied(&setup, &["AADSTS700027", "Certificates & secrets", &file.display().to_string()]).await;
    std::fs::remove_file(&file).unwrap();
    denied(&setup, &["does not exist", &file.display().to_string()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workloads_stale_or_strange_token_is_told_from_a_missing_trust() {
    let world = World::start().await;
    let (setup, file) = world.by_workload();
    let path = file.display().to_string();
    std::fs::write(&file, world.entra.federated_token(SUBJECT, -10)).unwrap();
    denied(&setup, &["AADSTS700024", "kubelet", &path]).await;
    std::fs::write(&file, world.entra.federated_token("system:serviceaccount:x:y", 3600)).unwrap();
    denied(&setup, &["AADSTS700213", "federated credential", "system:serviceaccount:NAMESPACE:NAME"]).await;
    std::fs::write(&file, world.entra.federated_token_for(SUBJECT, "sts.amazonaws.com")).unwrap();
    denied(&setup, &["AADSTS700212", "api://AzureADTokenExchange"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_the_identity_says_to_assign_it() {
    let world = World::start().await;
    world.entra.turn(|k| k.identities.clear());
    denied(
        &world.setup(world.managed(AssignedIdentity::System)),
        &["Identity not found", "assign an identity to this VM"],
    )
    .await;
    let named = world.managed(AssignedIdentity::ClientId("mi-7".into()));
    denied(&world.setup(named), &["mi-7", "assign that identity"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_whose_header_is_stale_or_whose_identity_is_off_is_told_so() {
    let world = World::start().await;
    let credential = managed(AssignedIdentity::System, None);
    let setup = world.setup(credential).variable("IDENTITY_ENDPOINT", world.entra.app_service());
    denied(&setup.clone().variable("IDENTITY_HEADER", "old"), &["IDENTITY_HEADER", "restart the app"]).await;
    world.entra.turn(|k| k.identities.clear());
    let header = crate::harness::simulator::entra::IDENTITY_HEADER;
    denied(&setup.variable("IDENTITY_HEADER", header), &["No User Assigned", "system-assigned identity on"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn surroundings_that_larder_does_not_speak_to_are_named() {
    let world = World::start().await;
    let credential = managed(AssignedIdentity::System, None);
    let setup = world.setup(credential);
    let fabric = setup.clone().variable("IDENTITY_ENDPOINT", world.entra.url()).variable("IDENTITY_HEADER", "h");
    denied(&fabric.variable("IDENTITY_SERVER_THUMBPRINT", "t"), &["Service Fabric", "service principal"]).await;
    denied(&setup.variable("MSI_ENDPOINT", "http://localhost/"), &["MSI_ENDPOINT", "az login"]).await;
    assert_eq!(world.entra.log().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_of_another_tenant_is_told_from_a_wrong_secret() {
    let world = World::start().await;
    world.entra.turn(|k| k.registry_tenant = "fabrikam".into());
    denied(&world.by_secret().0, &["tenant contoso", "AcrPull", APP]).await;
    assert_eq!(world.entra.log().len(), 1, "the same token is not asked for again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_service_that_is_away_or_a_portal_is_a_bad_gateway() {
    let world = World::start().await;
    let (setup, _) = world.by_secret();
    let cases: [(Mood, &[u16], &str); 5] = [
        (Mood::Portal(200), &[502], "without a token"),
        (Mood::Portal(403), &[502], "portal"),
        (Mood::Status(302), &[502], "portal"),
        (Mood::Status(503), &[502, 503, 504], "503"),
        (Mood::Portal(502), &[502, 503, 504], "502"),
    ];
    for (mood, statuses, part) in cases {
        world.entra.turn(|k| k.lasting = Some(mood.clone()));
        let (status, message) = refused(&setup).await;
        assert!(statuses.contains(&status) && message.contains(part), "{mood:?}: {status} {message}");
    }
    world.entra.stop_listening();
    let (status, message) = refused(&setup).await;
    assert!(matches!(status, 502 | 504) && message.contains("can be reached from here"), "{status} {message}");
    let (status, message) = refused(&world.setup(world.managed(AssignedIdentity::System))).await;
    assert!(matches!(status, 502 | 504) && message.contains("workload-identity"), "{status} {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_service_that_updates_or_throttles_is_waited_for() {
    let world = World::start().await;
    for mood in [
        Mood::Status(410),
        Mood::Status(404),
        Mood::Status(429),
        Mood::Status(500),
        Mood::RetryAfter(2),
        Mood::Slow(500),
    ] {
        let asked = world.entra.log().len();
        world.entra.turn(|k| k.moods = vec![mood.clone()]);
        let begun = tokio::time::Instant::now();
        pulls(&world, &world.setup(world.managed(AssignedIdentity::System)).start().await).await;
        let retried = !matches!(mood, Mood::Slow(_));
        assert_eq!(world.entra.log().len(), asked + 1 + usize::from(retried), "{mood:?}");
        let least = match mood {
            Mood::Slow(_) => Duration::from_millis(500),
            Mood::RetryAfter(_) => Duration::from_secs(2),
            _ => Duration::from_millis(1340),
        };
        assert!(begun.elapsed() >= least, "{mood:?}");
    }
}
