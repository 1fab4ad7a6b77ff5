//! The metadata service at its real address, and Arc's files in their real place, in namespaces of their own: nothing of the real
//! network can be reached there.

use super::*;
use crate::harness::namespace;
use crate::harness::simulator::entra::ArcServer;
use std::net::SocketAddr;
use std::path::Path;

const TOKENS: &str = "/var/opt/azcmagent/tokens";
const CHASSIS: &str = "/sys/class/dmi/id/chassis_asset_tag";

/// Gives the namespace its metadata address and folders of its own.
const SETUP: &str = "ip link set lo up; ip addr add 169.254.169.254/32 dev lo; mount -t tmpfs none /sys/class; \
                     mkdir -p /sys/class/dmi/id; mount -t tmpfs none /var/opt; mkdir -p /var/opt/azcmagent/tokens; mount -t tmpfs none /mnt; \
                     echo 127.0.0.1 localhost myacr.azurecr.io > /mnt/hosts; mount --bind /mnt/hosts /etc/hosts";

fn is_inside(test: &str) -> bool {
    namespace::is_inside(&["--net", "--mount"], SETUP, &format!("identity::namespace::{test}"))
}

async fn world() -> World {
    let metadata = SocketAddr::from(([169, 254, 169, 254], 80));
    World::with(Entra::start_at(metadata).await).await
}

/// The registry under the name of an ACR, which leads to it here.
fn as_acr(world: &World, credential: CredentialSettings) -> Setup {
    let url = world.acr.url().replace("127.0.0.1", "myacr.azurecr.io");
    world.setup(credential).upstream(|upstream| upstream.url = url.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_address_is_asked_and_never_through_a_proxy() {
    if !is_inside("the_metadata_address_is_asked_and_never_through_a_proxy") {
        return;
    }
    let world = world().await;
    let credential = managed(AssignedIdentity::System, None);
    let setup =
        world.setup(credential).variable("HTTP_PROXY", "http://127.0.0.1:1").variable("NO_PROXY", "127.0.0.0/8");
    pulls(&world, &setup.start().await).await;
    assert_eq!(world.entra.log().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_asks_the_metadata_service_of_azures_machines_and_of_no_others() {
    if !is_inside("auto_asks_the_metadata_service_of_azures_machines_and_of_no_others") {
        return;
    }
    let world = world().await;
    let setup = as_acr(&world, CredentialSettings::Auto);
    let larder = setup.start().await;
    assert_eq!(larder.get(&tag(1)).await.status, 403);
    let setup = larder.stop().await;
    assert_eq!(world.entra.log().len(), 0, "not one of Azure's machines");
    std::fs::write(CHASSIS, "7783-7084-3265-9085-8269-3286-77\n").unwrap();
    pulls(&world, &setup.start().await).await;
    assert_eq!(world.entra.count(|asked| asked.service == "imds"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_arcs_pulls_by_the_challenges_of_its_agent() {
    if !is_inside("a_server_of_arcs_pulls_by_the_challenges_of_its_agent") {
        return;
    }
    let world = world().await;
    world.entra.turn(|k| k.arc = Some(ArcServer { folder: TOKENS.into(), lies: None }));
    let credential = |identity| managed(identity, None);
    let arc = |setup: Setup| {
        let endpoint = format!("{}/metadata/identity/oauth2/token", world.entra.url());
        setup.variable("IDENTITY_ENDPOINT", endpoint).variable("IMDS_ENDPOINT", world.entra.url())
    };
    for credential in [credential(AssignedIdentity::System), CredentialSettings::Auto] {
        pulls(&world, &arc(as_acr(&world, credential)).start().await).await;
        assert!(Path::new(TOKENS).read_dir().unwrap().next().is_none(), "the challenge is used up");
    }
    assert!(world.entra.log().iter().all(|asked| asked.service == "arc"));
    let named = credential(AssignedIdentity::ClientId("mi".into()));
    let (status, message) = refusal(&arc(world.setup(named)).start().await).await;
    assert!(status == 403 && message.contains("leave client_id"), "{status} {message}");
}
