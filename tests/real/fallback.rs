//! What a client does when larder is down, or is sealed and lacks an image: with the files of `--sealed` it asks nobody else, and
//! fails; without, it pulls from the registry itself. The registry's own name leads to where it really is, so that a client that
//! tries gets what it wants: nothing but the files keeps it from there.

use crate::containerd::Containerd;
use crate::images::Tool;
use crate::matrix::{FALLBACKS, passed};
use crate::process::Outcome;
use crate::stage::{Image, Stage};
use crate::world::World;

/// Runs `pull` (a world, a place for what the client keeps, the reference) with files of both kinds.
fn goes_elsewhere_only_if_it_may(
    client: &'static str,
    files: &str,
    pull: impl Fn(&Stage, &World, &str, &str) -> Outcome,
) {
    // Each pull has an image of its own: none is there from before.
    let mut stage = Stage::in_the_open(&["open-miss", "sealed-miss", "open-down", "sealed-down"], &["--sealed"]);
    for trouble in ["miss", "down"] {
        if trouble == "down" {
            stage.larder.stop();
        }
        for (kind, arguments) in [("sealed", &["--sealed"][..]), ("open", &[])] {
            if !FALLBACKS.iter().any(|row| row.client == client && row.sealed == (kind == "sealed")) {
                continue;
            }
            let world = stage.world(files, arguments);
            let place = format!("{kind}-{trouble}");
            let reference = format!("{}/{}", stage.registry_name(), Image::of(&place).reference());
            let before = stage.came_to_the_registry();
            let outcome = pull(&stage, &world, &place, &reference);
            let came = stage.came_to_the_registry() - before;
            let promised = stage.guide(files, arguments)["when_down"].as_str().unwrap().to_owned();
            if kind == "sealed" {
                assert!(promised.starts_with("pulls fail"), "{promised}");
                assert!(!outcome.status.success(), "{client}, {place}: {outcome}");
                assert_eq!(came, 0, "{client}, {place}: the registry was asked: {outcome}");
            } else {
                assert!(promised.starts_with("pulls go to the registry itself"), "{promised}");
                outcome.ok();
                assert!(came > 0, "{client}, {place}: from where did it come?");
            }
        }
    }
    // larder itself kept away from the registry, too: it is sealed.
    for row in FALLBACKS.iter().filter(|row| row.client == client) {
        std::fs::write(passed(client, row.name()), "").unwrap();
    }
}

#[test]
fn matrix_fallback_containerd() {
    goes_elsewhere_only_if_it_may("containerd", "containerd", |stage, world, place, reference| {
        let home = stage.folder.sub(place);
        Containerd::start(&home).pulls(world, &home, reference)
    });
}

#[test]
fn matrix_fallback_skopeo() {
    reads_registries_conf("skopeo");
}

#[test]
fn matrix_fallback_podman() {
    reads_registries_conf("podman");
}

#[test]
fn matrix_fallback_buildah() {
    reads_registries_conf("buildah");
}

fn reads_registries_conf(client: &'static str) {
    goes_elsewhere_only_if_it_may(client, "podman", |stage, world, place, reference| {
        Tool::in_world(client, stage, place, world).pulls(reference)
    });
}

#[test]
fn matrix_fallback_regctl() {
    goes_elsewhere_only_if_it_may("regctl", "regctl", |stage, world, place, reference| {
        for line in stage.lines("regctl").iter().filter(|line| line.starts_with("regctl registry set")) {
            world.types(line).ok();
        }
        world.types(&format!("cd {} && regctl image export {reference} image.tar", stage.folder.sub(place).display()))
    });
}
