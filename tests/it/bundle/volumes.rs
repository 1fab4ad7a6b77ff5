//! Bundles in volumes: blobs that are longer than a volume, in slices; volumes in any order, lost, torn, twice.

use super::{Site, image, names_in};
use crate::harness::simulator::{Options, samples};
use crate::harness::{Acr, Dice};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of a volume.
const VOLUME: &str = "1200KB";

/// A site that has pulled an image with a layer that fills more than two volumes, and others beside it.
async fn wide() -> (Acr, Site) {
    let acr = Acr::start(Options::public()).await;
    let layers: Vec<_> = [(50, 3_000_000), (51, 700_000), (52, 900_000), (53, 2_000_000), (54, 10)]
        .map(|(seed, bytes)| samples::incompressible(seed, bytes))
        .into();
    image(&acr, "big", Some("v1"), "amd64", &layers);
    image(&acr, "small", Some("v1"), "amd64", &[samples::incompressible(60, 20_000)]);
    let site = Site::near(&acr).await;
    site.pull("big", "v1").await;
    site.pull("small", "v1").await;
    (acr, site)
}

fn split(site: &Site) -> Vec<PathBuf> {
    let kit = site.path("kit.tar");
    site.run(&["export", "--all", "--split", VOLUME, "--output", kit.to_str().unwrap()]);
    let sums = fs::read_to_string(site.path("SHA256SUMS")).unwrap();
    sums.lines().map(|line| site.path(line.split_once("  ").unwrap().1)).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_tars_of_a_length_with_sums_and_slices() {
    let (_acr, here) = wide().await;
    let volumes = split(&here);
    assert!(volumes.len() >= 6, "{volumes:?}");
    let checked = Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(here.setup.folder.path()).output();
    assert!(checked.unwrap().status.success());
    let plan = here.json(&["export", "--all", "--split", VOLUME, "--dry-run", "--json", "--output", "kit.tar"]);
    assert_eq!(plan["volumes"], volumes.len());
    let mut slices = 0;
    for (number, volume) in volumes.iter().enumerate() {
        assert_eq!(fs::metadata(volume).unwrap().len(), plan["volume_bytes"][number].as_u64().unwrap());
        assert!(fs::metadata(volume).unwrap().len() <= 1_200_000);
        let names = names_in(volume);
        let has_index = names.iter().any(|name| name == "index.json");
        assert_eq!(has_index, number == 0 || number == volumes.len() - 1, "{names:?}");
        assert!(names[0] == "oci-layout" && names.iter().any(|name| name == "larder-volume.json"), "{names:?}");
        slices += names.iter().filter(|name| name.starts_with("larder-slices/sha256/")).count();
    }
    assert!(slices >= 5, "{slices}");
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_come_one_at_a_time_in_any_order_and_each_time_it_is_said_what_is_missing() {
    let (_acr, here) = wide().await;
    let volumes = split(&here);
    let mut dice = Dice::new(7);
    let mut orders = vec![(0..volumes.len()).collect::<Vec<_>>(), (0..volumes.len()).rev().collect()];
    for _ in 0..3 {
        let mut order: Vec<usize> = (0..volumes.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, usize::try_from(dice.next() % (at as u64 + 1)).unwrap());
        }
        orders.push(order);
    }
    for order in orders {
        let mut there = Site::far().await;
        for (done, number) in order.iter().enumerate() {
            let output = there.larder(&["import", text(&volumes[*number])]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.code(), Some(0), "{order:?}, {done}: {output:?}");
            if done + 1 < volumes.len() {
                let missing: Vec<String> = (0..volumes.len())
                    .filter(|it| !order[..=done].contains(it))
                    .map(|it| (it + 1).to_string())
                    .collect();
                let line = format!("still missing of {} volumes: {}\n", volumes.len(), missing.join(", "));
                assert!(said.contains(&line), "{order:?}, {done}: {said}");
                assert_ne!(there.get("/v2/big/manifests/v1").await.status, 200, "{order:?}, {done}");
            }
            if done == volumes.len() / 2 {
                there.restart().await;
            }
        }
        for repository in ["big", "small"] {
            assert_eq!(there.pull(repository, "v1").await, here.pull(repository, "v1").await, "{order:?}");
        }
        // Nothing is left of the slices: the far side has what the near one has.
        let blobs = |site: &Site| site.run(&["inventory"]).lines().filter(|line| line.starts_with("blob ")).count();
        assert_eq!(blobs(&there), blobs(&here), "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_volume_fails_and_the_whole_one_makes_it_complete() {
    let (_acr, here) = wide().await;
    let volumes = split(&here);
    let there = Site::far().await;
    let torn = here.path("torn.003.tar");
    for part in [2, 30, 70, 99] {
        let bytes = fs::read(&volumes[2]).unwrap();
        fs::write(&torn, &bytes[..bytes.len() * part / 100]).unwrap();
        let output = there.larder(&["import", text(&torn)]);
        assert_eq!(output.status.code(), Some(1), "{part} %: {output:?}");
    }
    for (number, volume) in volumes.iter().enumerate().filter(|(number, _)| *number != 2) {
        // Twice does no harm.
        for _ in 0..=number % 2 {
            there.run(&["import", text(volume)]);
        }
    }
    assert_ne!(there.get("/v2/big/manifests/v1").await.status, 200);
    there.run(&["import", text(&volumes[2])]);
    assert_eq!(there.pull("big", "v1").await, here.pull("big", "v1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_with_a_wrong_byte_is_found_and_its_volume_asked_for_again() {
    let (_acr, here) = wide().await;
    let volumes = split(&here);
    let sliced = volumes.iter().position(|volume| names_in(volume).iter().any(|name| name.contains("larder-slices")));
    let sliced = &volumes[sliced.unwrap()];
    let right = fs::read(sliced).unwrap();
    let mut wrong = right.clone();
    let middle = wrong.len() - 100_000;
    wrong[middle] ^= 1;
    fs::write(sliced, wrong).unwrap();
    let there = Site::far().await;
    let output = there.larder(&["import", text(here.setup.folder.path())]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the slices of sha256:") && said.contains("import the volumes"), "{said}");
    assert_ne!(there.get("/v2/big/manifests/v1").await.status, 200);
    fs::write(sliced, right).unwrap();
    there.run(&["import", text(here.setup.folder.path())]);
    assert_eq!(there.pull("big", "v1").await, here.pull("big", "v1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_volumes_of_which_one_is_lost_fails_and_says_which() {
    let (_acr, here) = wide().await;
    let volumes = split(&here);
    let folder = here.path("disk");
    fs::create_dir(&folder).unwrap();
    for volume in &volumes {
        fs::rename(volume, folder.join(volume.file_name().unwrap())).unwrap();
    }
    let lost = here.path("lost.tar");
    fs::rename(folder.join("kit.004.tar"), &lost).unwrap();
    let there = Site::far().await;
    let output = there.larder(&["import", text(&folder)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains(&format!("still missing of {} volumes: 4\n", volumes.len())), "{said}");
    fs::rename(&lost, folder.join("kit.004.tar")).unwrap();
    there.run(&["import", text(&folder)]);
    assert_eq!(there.pull("big", "v1").await, here.pull("big", "v1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_split_is_continued_and_nothing_of_another_export_is_taken_for_it() {
    let (_acr, here) = wide().await;
    let kit = here.path("kit.tar");
    let export = |split: &str| here.run(&["export", "--all", "--split", split, "--output", text(&kit)]);
    let volumes = split(&here);
    let whole: Vec<Vec<u8>> = volumes.iter().map(|volume| fs::read(volume).unwrap()).collect();
    let is_whole = || volumes.iter().zip(&whole).all(|(path, bytes)| fs::read(path).unwrap() == *bytes);
    // As it is when it was interrupted in the third volume; the second one has been damaged since.
    let sums = fs::read_to_string(here.path("SHA256SUMS")).unwrap();
    let first: Vec<&str> = sums.lines().take(2).collect();
    fs::write(here.path("SHA256SUMS.partial"), first.join("\n")).unwrap();
    fs::remove_file(here.path("SHA256SUMS")).unwrap();
    let mut damaged = whole[1].clone();
    damaged[600_000] ^= 1;
    fs::write(&volumes[1], damaged).unwrap();
    fs::write(here.path("kit.003.tar.partial"), &whole[2][..300_000]).unwrap();
    export(VOLUME);
    assert!(is_whole());
    assert_eq!(fs::read_to_string(here.path("SHA256SUMS")).unwrap(), sums);
    // A part of an export with other volumes begins with the same index.
    fs::write(here.path("kit.001.tar.partial"), &whole[0][..900_000]).unwrap();
    fs::write(here.path("kit.002.tar.partial"), &whole[1][..900_000]).unwrap();
    export("4MB");
    assert!(!here.path(&format!("kit.{:03}.tar", volumes.len())).exists(), "volumes of the longer one are removed");
    let there = Site::far().await;
    there.run(&["import", text(here.setup.folder.path())]);
    assert_eq!(there.pull("big", "v1").await, here.pull("big", "v1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_whole_is_continued_as_the_whole_and_not_as_a_delta() {
    let (_acr, here) = wide().await;
    let (whole, delta) = (here.path("whole.tar"), here.path("delta.tar"));
    here.run(&["export", "--all", "--output", text(&whole)]);
    let there = Site::far().await;
    let small = here.path("small.tar");
    here.run(&["export", "small:v1", "--output", text(&small)]);
    there.run(&["import", text(&small)]);
    let inventory = there.path("inventory");
    there.run(&["inventory", "--output", text(&inventory)]);
    let bytes = fs::read(&whole).unwrap();
    // As the whole it is continued, and what was written is not written again: a byte that has changed there stays changed.
    let mut part = bytes[..5_000_000].to_vec();
    part[2_000_000] ^= 1;
    fs::write(here.path("whole.tar.partial"), &part).unwrap();
    here.run(&["export", "--all", "--output", text(&whole)]);
    let mut continued = fs::read(&whole).unwrap();
    continued[2_000_000] ^= 1;
    assert!(continued == bytes);
    fs::write(here.path("delta.tar.partial"), &bytes[..bytes.len() / 2]).unwrap();
    here.run(&["export", "--all", "--have", text(&inventory), "--output", text(&delta)]);
    assert_eq!(names_in(&delta).len(), names_in(&whole).len() - 2);
    there.run(&["import", text(&delta)]);
    assert_eq!(there.pull("big", "v1").await, here.pull("big", "v1").await);
}
