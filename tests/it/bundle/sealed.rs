//! A sealed larder in a network of its own, in which every packet that leaves is counted.

use super::{Site, near};
use crate::harness::Setup;
use crate::harness::namespace::is_inside;

/// A way out whose other end takes everything: names and addresses lead there, and nothing comes back. IPv6 would send by itself.
const SETUP: &str = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; \
                     ip link set lo up; ip link add out type veth peer name nowhere; ip link set nowhere up; ip link set out up; \
                     ip addr add 203.0.113.9/24 dev out; ip route add default via 203.0.113.1; \
                     ip neigh add 203.0.113.1 lladdr 02:00:00:00:00:01 dev out";

/// Packets that have left by the way out.
fn packets() -> u64 {
    let devices = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("out:")).unwrap();
    line.split_whitespace().nth(9).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_site_sends_no_packet_whatever_it_is_asked() {
    if !is_inside(&["--net"], SETUP, "bundle::sealed::a_sealed_site_sends_no_packet_whatever_it_is_asked") {
        return;
    }
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    here.run(&["export", "--all", "--output", kit.to_str().unwrap()]);
    // By a name, for which a server beyond would have to be asked, with a login that asks for itself.
    let away = |url: &str| Setup::at(url);
    let more = "[upstream.credential]\nkind = \"auto\"\n[network]\ndns = [\"203.0.113.53\"]\n";
    let there = Site::start(away("https://myacr.azurecr.io"), &format!("sealed = true\n{more}")).await;
    there.run(&["import", kit.to_str().unwrap()]);
    there.pull("app", "v1").await;
    for target in [
        "/v2/",
        "/v2/_catalog",
        "/v2/app/tags/list",
        "/v2/none/tags/list",
        "/v2/app/manifests/none",
        "/v2/none/blobs/sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "/v2/app/referrers/sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "/v2/app/manifests/v1?ns=elsewhere.test",
        "/acr/v1/_catalog",
    ] {
        there.get(target).await;
    }
    let inventory = there.path("inventory");
    there.run(&["inventory", "--output", inventory.to_str().unwrap()]);
    there.run(&["list", "--missing"]);
    there.larder(&["warm", "app:none"]);
    there.larder(&["verify"]);
    assert_eq!(packets(), 0, "{}", there.process.stderr());
    // The same larder with its seal broken is counted.
    let open = Site::start(away("https://203.0.113.1"), "").await;
    open.larder(&["warm", "app:none"]);
    assert!(packets() > 0, "what leaves is counted");
}
