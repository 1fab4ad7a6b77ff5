//! The checks of the OCI distribution specification's conformance program (OCI 1.1: pull, push, discovery and management), by the
//! same names, between a client and larder in front of the simulator, and against the simulator alone. `checks.txt` has the names that the
//! program prints, with how often; `docs/conformance.md` says how to run the program itself.
//!
//! What a check expects is the program's idea of the specification; nothing here is taken from it but the names.

#![expect(clippy::unwrap_used, unreachable_pub, reason = "every function here is a test's")]

use crate::harness;

mod blobs;
mod content;
mod registry;
mod report;
mod sets;
mod wrong;

use harness::simulator::{Options, Redirect};
use harness::{Acr, Client, Setup};
use larder::config::{AccessRule, Right};
use larder::oci::RepositoryPattern;
use registry::Registry;
use report::Report;
use std::collections::BTreeMap;

const USER: &str = "ci";
const PASSWORD: &str = "secret";

/// Everything, in the program's order.
async fn run(registry: &Registry) -> Report {
    let mut report = Report::default();
    report.check("ping", registry.ping().await);
    report.check("empty/tag list", registry.has_no_tags().await);
    report.check("empty/referrers", registry.has_no_referrers().await);
    for algorithm in ["sha256", "sha512"] {
        blobs::run(registry, algorithm, &mut report).await;
    }
    for set in content::all() {
        sets::run(registry, &set, &mut report).await;
    }
    wrong::run(registry, &mut report).await;
    report
}

async fn acr() -> Acr {
    let acr = Acr::start(Options::private(USER, PASSWORD)).await;
    // Behind a redirect the program counts the answers of the storage, which is not what is under test.
    acr.knobs().turn(|knobs| {
        knobs.redirect = Redirect::Direct;
        knobs.referrers_filter = true;
    });
    acr
}

/// The names in `checks.txt`, with how often each is there.
fn expected() -> BTreeMap<String, usize> {
    let lines = include_str!("checks.txt").lines();
    lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(count, name)| (name.to_owned(), count.parse().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn through_larder_every_check_holds() {
    let acr = acr().await;
    let setup = Setup::of(&acr).password(USER, PASSWORD).with(|settings| {
        settings.access.rules = vec![AccessRule {
            users: None,
            networks: None,
            repositories: vec![RepositoryPattern::new("**")],
            allow: vec![Right::Push, Right::Delete],
        }];
    });
    let larder = setup.start().await;
    let report = run(&Registry::new(larder.client(), None)).await;
    report.assert_all_hold();
    assert_eq!(report.names(), expected());
    assert_eq!(acr.violations(), Vec::<String>::new(), "what ACR would have refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_alone_holds_every_check() {
    let acr = acr().await;
    let registry = Registry::new(Client::new(acr.host().parse().unwrap()), Some((USER, PASSWORD)));
    let report = run(&registry).await;
    report.assert_all_hold();
    assert_eq!(report.names(), expected());
}
