//! What people see when the upstream sends wrong bytes, or when many of them come at once.

use std::fs;
use std::thread;

use crate::content::{digest_of, samples};
use crate::larder::Larder;
use crate::oras::{Oras, Version};
use crate::process::Folder;
use crate::simulator::{Damage, DamageKind, Seen};
use crate::upstream::{Kind, Upstream};

/// `builds/myapp:1.2.3`, the one with megabytes.
const BUILD: usize = 3;

#[test]
fn eight_clients_at_once_cost_one_download_of_each_blob() {
    let folder = Folder::new();
    let upstream = Upstream::start(Kind::Simulator, &folder);
    // Slow enough for all of them to come while the first is being served.
    upstream.simulator().knobs().turn(|knobs| knobs.total_rate = Some(4 << 20));
    let larder = Larder::start(&folder, &upstream.arguments);
    let (oras, sample) = (Oras::new(Version::V1_3_3, &folder), &samples()[BUILD]);
    let reference = format!("{}/{}", larder.host(), sample.reference());
    thread::scope(|scope| {
        for client in 0..8 {
            let (oras, reference, folder) = (&oras, &reference, folder.sub(&format!("client-{client}")));
            scope.spawn(move || {
                oras.ok(&["pull", reference], &folder);
                let whole = |name: &str, bytes: &[u8]| fs::read(folder.join(name)).unwrap() == bytes;
                assert!(sample.files.iter().all(|file| whole(file.name, &file.bytes)), "client {client}");
            });
        }
    });
    let bodies = upstream.simulator().count(Seen::is_blob_body);
    assert_eq!(bodies, sample.files.len(), "one GET for each file, however many clients");
}

#[test]
fn wrong_bytes_reach_nobody_and_the_next_pull_is_whole() {
    let folder = Folder::new();
    let upstream = Upstream::start(Kind::Simulator, &folder);
    let larder = Larder::start(&folder, &upstream.arguments);
    let (oras, sample) = (Oras::new(Version::V1_3_3, &folder), &samples()[BUILD]);
    let reference = format!("{}/{}", larder.host(), sample.reference());
    let program = &sample.files[0];
    upstream.simulator().knobs().damage(Damage::once(DamageKind::Flip, 5 << 20).of(&digest_of(&program.bytes)));

    let first = oras.run(&["pull", &reference], &folder.sub("first"));
    assert!(!first.status.success(), "a pull of wrong bytes succeeded: {first}");
    assert_eq!(larder.metric("larder_digest_failures_total", "where=\"fill\""), 1);
    let second = folder.sub("second");
    oras.ok(&["pull", &reference], &second);
    assert!(fs::read(second.join(program.name)).unwrap() == program.bytes);
}
