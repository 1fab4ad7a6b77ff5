use super::{Site, near};
use std::fs;
use tar::EntryType as Kind;

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_archive_keeps_what_was_whole_and_is_continued() {
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    here.run(&["export", "--all", "--output", kit.to_str().unwrap()]);
    let bytes = fs::read(&kit).unwrap();
    let there = Site::far().await;
    for part in [3, 9, 17, 60, 99] {
        let cut = here.path("cut.tar");
        fs::write(&cut, &bytes[..bytes.len() * part / 100]).unwrap();
        let output = there.larder(&["import", cut.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{part} %: {output:?}");
        assert_ne!(there.get("/v2/app/manifests/v1").await.status, 200, "{part} %");
    }
    let report = there.json(&["import", kit.to_str().unwrap(), "--json"]);
    assert!(report["present"].as_u64().unwrap() > 4, "{report}");
    assert_eq!(there.pull("app", "v1").await, here.pull("app", "v1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_stores_nothing_wrong() {
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    here.run(&["export", "app:v1", "--output", kit.to_str().unwrap()]);
    let bytes = fs::read(&kit).unwrap();
    let last = bytes.len() - 2000;
    for at in [600, 1600, 3000, 4700, last] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let path = here.path("damaged.tar");
        fs::write(&path, &damaged).unwrap();
        let there = Site::far().await;
        there.larder(&["import", path.to_str().unwrap()]);
        let answer = there.get("/v2/app/manifests/v1").await;
        assert!(answer.status != 200 || answer.body == here.get("/v2/app/manifests/v1").await.body, "byte {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hash_of_the_index_carries_all_trust() {
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    let printed = here.run(&["export", "app:v1", "--output", kit.to_str().unwrap()]);
    let hash = printed.lines().find_map(|line| line.strip_prefix("index.json ")).unwrap().to_owned();
    let there = Site::far().await;
    let wrong = format!("sha256:{}", "0".repeat(64));
    let output = there.larder(&["import", kit.to_str().unwrap(), "--expect", &wrong]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&hash), "{output:?}");
    assert_ne!(there.get("/v2/app/manifests/v1").await.status, 200);
    there.run(&["import", kit.to_str().unwrap(), "--expect", &hash]);
    assert_eq!(there.get("/v2/app/manifests/v1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_not_configured_is_named() {
    let (_acr, here) = near().await;
    let folder = here.path("folder");
    here.run(&["export", "app:v1", "--output", folder.to_str().unwrap()]);
    let index = folder.join("index.json");
    let text = fs::read_to_string(&index).unwrap().replace(crate::harness::UPSTREAM, "unknown.azurecr.io");
    fs::write(&index, text).unwrap();
    let there = Site::far().await;
    let output = there.larder(&["import", folder.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("unknown.azurecr.io") && text.contains("[[upstream]]") && text.contains("--as"), "{text}");
}

/// A tar with a file of a bundle and then one of another kind or name.
fn with_a_trick(kit: &std::path::Path, trick: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut archive = tar::Archive::new(fs::File::open(kit).unwrap());
    let mut builder = tar::Builder::new(Vec::new());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut header = entry.header().clone();
        let path = entry.path().unwrap().into_owned();
        builder.append_data(&mut header, path, &mut entry).unwrap();
    }
    trick(&mut builder);
    builder.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_with_a_trick_anywhere_in_it_is_refused_before_anything_of_it_is_stored() {
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    here.run(&["export", "app:v1", "--output", kit.to_str().unwrap()]);
    let (there, piped) = (Site::far().await, Site::far().await);
    let named = |name: &'static [u8], kind: Kind, size: u64| {
        move |builder: &mut tar::Builder<Vec<u8>>| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
            header.set_size(size);
            header.set_cksum();
            builder.append(&header, &b"x"[..]).unwrap();
        }
    };
    let tricks = [
        named(b"../../etc/passwd", Kind::Regular, 1),
        named(b"/etc/passwd", Kind::Regular, 1),
        named(b"index.json", Kind::Regular, 1),
        named(b"a", Kind::Symlink, 0),
        named(b"a", Kind::Link, 0),
        named(b"a", Kind::Char, 0),
        named(b"a", Kind::Fifo, 0),
        named(b"b", Kind::XHeader, 100 << 30),
        named(
            b"larder-slices/sha256/0000000000000000000000000000000000000000000000000000000000000000/0",
            Kind::Regular,
            1,
        ),
    ];
    for (number, trick) in tricks.into_iter().enumerate() {
        let path = here.path("trick.tar");
        fs::write(&path, with_a_trick(&kit, trick)).unwrap();
        let output = there.larder(&["import", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{number}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("the bundle is refused"), "{number}: {output:?}");
        assert_eq!(there.run(&["inventory"]).lines().count(), 1, "{number}: something was stored");
        // From a pipe it is stored as it comes, and not linked.
        let output = piped.command(&["import", "-"]).stdin(fs::File::open(&path).unwrap()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{number}: {output:?}");
        assert_ne!(piped.get("/v2/app/manifests/v1").await.status, 200, "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_links_or_pipes_in_the_place_of_contents_is_refused() {
    let (_acr, here) = near().await;
    let folder = here.path("folder");
    here.run(&["export", "app:v1", "--output", folder.to_str().unwrap()]);
    let blobs = folder.join("blobs/sha256");
    let victim = fs::read_dir(&blobs).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(&victim).unwrap();
    let there = Site::far().await;
    for make in ["ln -s /etc/passwd", "mkfifo"] {
        let made = std::process::Command::new("sh").arg("-c").arg(format!("{make} \"$0\"")).arg(&victim).status();
        assert!(made.unwrap().success());
        let output = there.larder(&["import", folder.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{make}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("is no file"), "{make}: {output:?}");
        assert_eq!(there.run(&["inventory"]).lines().count(), 1, "{make}: something was stored");
        fs::remove_file(&victim).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_finds_no_room_is_refused_before_its_first_byte() {
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    here.run(&["export", "--all", "--output", kit.to_str().unwrap()]);
    let there = Site::far_with("[store]\nmax_size = \"300KB\"\n").await;
    let output = there.larder(&["import", kit.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("max_size") && said.contains("nothing was stored"), "{said}");
    assert_eq!(there.run(&["inventory"]).lines().count(), 1);
    let plan = there.json(&["import", kit.to_str().unwrap(), "--dry-run", "--json"]);
    assert!(plan["free_bytes"].as_u64().unwrap() <= 300_000, "{plan}");
    assert!(plan["unique_bytes"].as_u64().unwrap() > 450_000 && plan["far_bytes"] == 0, "{plan}");
    assert_eq!((&plan["volumes"], plan["repositories"].as_array().unwrap().len()), (&1.into(), 2), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_import_at_the_same_time_is_refused_and_one_that_was_killed_is_continued() {
    use std::io::Write as _;
    use std::process::Stdio;
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    here.run(&["export", "--all", "--output", kit.to_str().unwrap()]);
    let there = Site::far().await;
    let mut first = there.command(&["import", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let bytes = fs::read(&kit).unwrap();
    let mut pipe = first.stdin.take().unwrap();
    pipe.write_all(&bytes[..bytes.len() * 2 / 3]).unwrap();
    crate::harness::until("something of it is stored", || there.run(&["inventory"]).lines().count() > 3).await;
    let output = there.larder(&["import", kit.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("another import is under way"), "{output:?}");
    first.kill().unwrap();
    first.wait().unwrap();
    drop(pipe);
    let report = there.json(&["import", kit.to_str().unwrap(), "--json"]);
    assert!(report["present"].as_u64().unwrap() >= 3 && report["linked"] == 2, "{report}");
    assert_eq!(there.pull("app", "v1").await, here.pull("app", "v1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_another_version_says_so() {
    let (_acr, here) = near().await;
    let folder = here.path("folder");
    here.run(&["export", "app:v1", "--output", folder.to_str().unwrap()]);
    let notes = fs::read_to_string(folder.join("larder.json")).unwrap();
    fs::write(folder.join("larder.json"), notes.replace("\"larder\":1", "\"larder\":2")).unwrap();
    let there = Site::far().await;
    let output = there.larder(&["import", folder.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("another format (2)"), "{output:?}");
    assert_ne!(there.get("/v2/app/manifests/v1").await.status, 200);
}
