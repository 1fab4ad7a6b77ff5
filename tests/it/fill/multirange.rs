//! Several ranges in one request, as clients of zstd:chunked images and lazy snapshotters send them: `multipart/byteranges` with
//! every part as it was asked for.

use super::harness::simulator::{Damage, DamageKind, Redirect};
use super::harness::{Answer, Setup, until};
use super::{MIB, Scene};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::ops::Range;

type Part<'a> = (Range<usize>, &'a [u8]);

/// Reads a multipart answer by its parts' lengths, and holds its whole form to RFC 9110, section 14.6, and RFC 2046.
fn parts<'a>(scene: &Scene, answer: &'a Answer) -> Vec<Part<'a>> {
    assert_eq!(answer.status, 206, "{}", String::from_utf8_lossy(&answer.body));
    let kind = answer.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{kind}"));
    assert!(boundary.len() <= 70 && boundary.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{boundary}");
    assert_eq!(answer.header("content-range"), None);
    assert_eq!(answer.header("docker-content-digest"), Some(&*scene.digest));
    assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
    let (mut rest, mut found) = (&answer.body[..], Vec::new());
    let mut delimiter = format!("--{boundary}");
    while rest != format!("\r\n--{boundary}--\r\n").as_bytes() {
        let head_end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("a head ends") + 4;
        let head = std::str::from_utf8(&rest[..head_end]).unwrap();
        let head = head.strip_prefix(&*delimiter).and_then(|head| head.strip_suffix("\r\n\r\n"));
        let mut lines = head.unwrap_or_else(|| panic!("{delimiter} is missing")).split("\r\n");
        assert_eq!(lines.next(), Some(""));
        assert_eq!(lines.next(), Some("Content-Type: application/octet-stream"));
        let range = lines.next().unwrap().strip_prefix("Content-Range: bytes ").unwrap();
        assert_eq!(lines.next(), None);
        let (range, total) = range.split_once('/').unwrap();
        assert_eq!(total.parse::<usize>().unwrap(), scene.content.len());
        let (first, last) = range.split_once('-').unwrap();
        let range = first.parse::<usize>().unwrap()..last.parse::<usize>().unwrap() + 1;
        let (bytes, behind) = rest[head_end..].split_at(range.len());
        found.push((range, bytes));
        rest = behind;
        delimiter = format!("\r\n--{boundary}");
    }
    found
}

/// The answer has exactly these parts of the content, in this order.
fn are_parts(scene: &Scene, answer: &Answer, wanted: &[Range<usize>]) {
    let found = parts(scene, answer);
    assert_eq!(found.iter().map(|(range, _)| range.clone()).collect::<Vec<_>>(), wanted);
    for (range, bytes) in found {
        assert!(bytes == &scene.content[range.clone()], "{range:?}");
    }
}

fn header(ranges: &[Range<usize>]) -> String {
    let list: Vec<String> = ranges.iter().map(|range| format!("{}-{}", range.start, range.end - 1)).collect();
    format!("bytes={}", list.join(","))
}

async fn ask(scene: &Scene, range: &str) -> Answer {
    scene.larder.call("GET", &scene.target).range(range).send().await
}

async fn stored(size: usize) -> Scene {
    let scene = Scene::of(size).await;
    scene.serves().await;
    scene.stored().await;
    scene
}

#[tokio::test]
async fn parts_come_in_the_order_asked_for_and_those_outside_are_left_out() {
    let scene = stored(100_000).await;
    for (asked, wanted) in [
        ("bytes=0-0,99999-99999", vec![0..1, 99_999..100_000]),
        ("bytes=50000-59999, 10-19 ,-5", vec![50_000..60_000, 10..20, 99_995..100_000]),
        ("bytes=0-9,5-14,0-9", vec![0..10, 5..15, 0..10]),
        ("bytes=0-9,100000-100009,90000-200000", vec![0..10, 90_000..100_000]),
    ] {
        are_parts(&scene, &ask(&scene, asked).await, &wanted);
    }
    let two = scene.larder.call("GET", &scene.target).range("bytes=0-9").range("bytes=20-29").send().await;
    are_parts(&scene, &two, &[0..10, 20..30]);
    assert_eq!(two.cache_status(), "larder; hit");
    assert_eq!(scene.bodies().len(), 1, "nothing was asked for upstream");
}

/// One part is no multipart answer: clients that sent several take a plain 206 for it too.
#[tokio::test]
async fn one_part_that_is_left_is_a_plain_206() {
    let scene = stored(100_000).await;
    let answer = ask(&scene, "bytes=5-9,100000-").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-range")), (206, Some("bytes 5-9/100000")));
    assert!(answer.body == scene.content[5..10]);
}

/// 416 ends a pull of a zstd:chunked image; so does a part that the client cannot expect.
#[tokio::test]
async fn what_cannot_be_answered_in_parts_is_the_whole_and_never_416() {
    let scene = stored(100_000).await;
    for asked in [
        "bytes=100000-,200000-200001",   // nothing is left
        "bytes=0-99999,0-99999,0-99999", // three times the blob: an amplifier
        "bytes=0-,1-",
        "bytes=0-9,x",
        "bytes=0-9,+10-11",
        "items=0-9,20-29",
    ] {
        let answer = ask(&scene, asked).await;
        assert_eq!(answer.status, 200, "{asked}");
        assert!(answer.body == scene.content, "{asked}");
    }
    let validated = scene.larder.call("GET", &scene.target).range("bytes=0-1,4-5").line("If-Range", "\"x\"");
    assert_eq!(validated.send().await.status, 200);
    let head = scene.larder.call("HEAD", &scene.target).range("bytes=0-1,4-5").send().await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, Some("100000")));
}

/// containers/image merges at most 1,024 missing chunks into one request: a header of 18 to 20 KB.
#[tokio::test]
async fn as_many_ranges_as_clients_of_zstd_chunked_images_send() {
    let scene = stored(12 * MIB).await;
    let ranges: Vec<_> = (0..1024).map(|at| at * 11_000 + 1_000_000..at * 11_000 + 1_003_000 + at).collect();
    let list = header(&ranges[..]);
    assert!(list.len() > 16_000, "{} bytes", list.len());
    are_parts(&scene, &ask(&scene, &list).await, &ranges);
    let too_many: Vec<_> = (0..2049).map(|at| at * 2..at * 2 + 1).collect();
    let (status, code, message) = ask(&scene, &header(&too_many)).await.error();
    assert_eq!((status, &*code), (400, "UNSUPPORTED"), "{message}");
    assert!(message.contains("2048"), "{message}");
    are_parts(&scene, &ask(&scene, &header(&too_many[..2048])).await, &too_many[..2048]);
}

/// The same request gets the same bytes, before and after a restart.
#[tokio::test]
async fn the_boundary_is_the_blobs_own() {
    let scene = stored(100_000).await;
    let (first, second) = (ask(&scene, "bytes=0-0,9-9").await, ask(&scene, "bytes=0-0,9-9").await);
    assert_eq!(first.body, second.body);
    assert_eq!(first.header("content-type"), second.header("content-type"));
}

/// A blob that is on its way: what is there comes from the fill, what is not soon is asked for by itself, a few times; the fill
/// stays the only one.
#[tokio::test]
async fn parts_of_a_blob_that_is_on_its_way() {
    let scene = Scene::of(16 * MIB).await;
    scene.rate(Some(MIB));
    let mut reader = scene.larder.call("GET", &scene.target).open().await;
    reader.at_least(MIB / 2).await;
    let ranges = [0..1000, 12 * MIB..12 * MIB + 1000, 2000..3000, 16 * MIB - 7..16 * MIB];
    let answer = ask(&scene, &header(&ranges)).await;
    are_parts(&scene, &answer, &ranges);
    assert_eq!(answer.cache_status(), "larder; fwd=miss; collapsed; stored; detail=unverified");
    let asked: Vec<String> = scene.ranges().into_iter().flatten().collect();
    assert_eq!(asked, [header(&ranges[1..2]), header(&ranges[3..4])]);
    scene.rate(None);
    assert_eq!(reader.hashed().await.1, scene.digest);
    scene.stored().await;
    assert_eq!(scene.acr.downloads(), 1);
}

/// Many parts of a blob that nobody has asked for yet cost few requests: behind those, they come with the fill.
#[tokio::test]
async fn many_parts_of_a_blob_that_is_not_here_cost_few_requests() {
    let scene = Scene::of(16 * MIB).await;
    scene.rate(Some(8 * MIB));
    let ranges: Vec<_> = (0..200).rev().map(|at| at * 80_000 + 500..at * 80_000 + 900).collect();
    let answer = ask(&scene, &header(&ranges)).await;
    are_parts(&scene, &answer, &ranges);
    let own = scene.ranges().into_iter().flatten().count();
    assert!((1..=16).contains(&own), "{own} requests of its own");
    scene.rate(None);
    scene.stored().await;
    assert_eq!(scene.acr.downloads(), 1);
}

#[tokio::test]
async fn parts_of_a_small_blob_wait_for_its_digest() {
    let scene = Scene::of(2 * MIB).await;
    scene.rate(Some(8 * MIB));
    let ranges = [5..10, 1_000_000..1_000_010];
    let answer = ask(&scene, &header(&ranges)).await;
    are_parts(&scene, &answer, &ranges);
    assert_eq!(answer.cache_status(), "larder; fwd=miss; stored");
    assert_eq!(scene.ranges(), [None]);
    let wrong = Scene::of(2 * MIB).await;
    wrong.acr.knobs().damage(Damage::always(DamageKind::Flip, 2_000_000));
    assert_eq!(ask(&wrong, &header(&ranges)).await.error().0, 502, "wrong bytes are not sent, not even as parts");
}

/// What the fill turns out to have wrong breaks the answer before the last bytes of the blob.
#[tokio::test]
async fn parts_of_wrong_bytes_never_end_cleanly_with_the_blobs_end() {
    let scene = Scene::of(16 * MIB).await;
    scene.acr.knobs().damage(Damage::always(DamageKind::Flip, 9));
    scene.rate(Some(32 * MIB));
    let call = scene.larder.call("GET", &scene.target).range(&format!("bytes=0-99,100-{}", 16 * MIB - 1));
    let broken = call.try_send().await.unwrap_err();
    assert_eq!(broken.answer.status, 206);
}

/// Where nothing is kept, few parts are requests of their own, and many are the whole blob.
#[tokio::test]
async fn parts_of_a_blob_that_finds_no_room() {
    let small = |setup: Setup| setup.with(|settings| settings.store.max_size = Some(4 * MIB as u64));
    let scene = Scene::with(8 * MIB, Redirect::Sas, small).await;
    let ranges = [7_000_000..7_000_100, 3..9];
    let answer = ask(&scene, &header(&ranges)).await;
    are_parts(&scene, &answer, &ranges);
    assert_eq!(answer.cache_status(), "larder; fwd=bypass; detail=unverified");
    let many: Vec<_> = (0..40).map(|at| at * 1000..at * 1000 + 10).collect();
    let answer = ask(&scene, &header(&many)).await;
    assert_eq!((answer.status.as_u16(), answer.cache_status()), (200, "larder; fwd=bypass"));
    assert!(answer.body == scene.content);
}

/// Flips a bit on the disk, as a new process finds it.
async fn restarted_with_damage(scene: Scene, at: usize) -> Scene {
    let path = scene.larder.blob_path(&scene.digest);
    let Scene { acr, larder, content, digest, target } = scene;
    let setup = larder.stop().await;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    Scene { acr, larder: setup.start().await, content, digest, target }
}

#[tokio::test]
async fn a_damaged_piece_that_is_found_first_costs_the_reader_nothing() {
    let scene = restarted_with_damage(stored(12 * MIB).await, 9 * MIB + 5).await;
    let ranges = [3..900, 9 * MIB..9 * MIB + 100];
    are_parts(&scene, &ask(&scene, &header(&ranges)).await, &ranges);
    scene.stored().await;
    assert_eq!(scene.acr.downloads(), 2, "the blob was set aside and fetched again");
}

#[tokio::test]
async fn a_damaged_piece_that_is_found_later_never_leaves() {
    let scene = restarted_with_damage(stored(12 * MIB).await, 9 * MIB + 5).await;
    // More pieces than are looked at before the answer begins.
    let mut ranges: Vec<_> = (0..6).map(|at| at * MIB..at * MIB + 1000).collect();
    ranges.push(9 * MIB..9 * MIB + 100);
    let broken = scene.larder.call("GET", &scene.target).range(&header(&ranges)).try_send().await.unwrap_err();
    assert_eq!(broken.answer.status, 206);
    let bad = &scene.content[9 * MIB + 6..9 * MIB + 100];
    assert!(!broken.answer.body.windows(bad.len()).any(|bytes| bytes == bad), "the piece has left");
    scene.serves().await;
    until("the blob is whole again", || scene.larder.stores(&scene.digest)).await;
    are_parts(&scene, &ask(&scene, &header(&ranges)).await, &ranges);
}

/// What a list of ranges means, as simply as it can be said.
fn model(asked: &[(Option<usize>, Option<usize>)], length: usize) -> Option<Vec<Range<usize>>> {
    let part = |range: &(Option<usize>, Option<usize>)| match *range {
        (Some(first), Some(last)) => first..(last + 1).min(length),
        (Some(first), None) => first..length,
        (None, last) => length.saturating_sub(last.unwrap())..length,
    };
    let parts: Vec<_> = asked.iter().map(part).filter(|part| part.start < part.end).collect();
    let total: usize = parts.iter().map(Range::len).sum();
    (!parts.is_empty() && total <= length).then_some(parts)
}

fn one_range(length: usize) -> impl Strategy<Value = (Option<usize>, Option<usize>)> {
    let place = 0..length + length / 4;
    prop_oneof![
        6 => (place.clone(), 0..length / 8).prop_map(|(first, more)| (Some(first), Some(first + more))),
        1 => (place.clone(), place.clone()).prop_map(|(first, last)| (Some(first), Some(last))),
        1 => place.clone().prop_map(|first| (Some(first), None)),
        1 => place.prop_map(|count| (None, Some(count))),
    ]
}

/// Whatever is asked for, cold or stored, of blobs of one piece and of several.
#[test]
fn any_list_of_ranges_gets_what_a_simple_model_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (size, cases) in [(1, 20), (3_000, 150), (3 * MIB + 17, 60)] {
        let scene = runtime.block_on(Scene::of(size));
        let lists = prop::collection::vec(one_range(size.max(8)), 2..12);
        let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let result = runner.run(&lists, |list| {
            let mut asked = String::from("bytes=");
            for (first, last) in &list {
                let number = |n: &Option<usize>| n.map_or_else(String::new, |n| n.to_string());
                let _ = write!(asked, "{}-{},", number(first), number(last));
            }
            let answer = runtime.block_on(ask(&scene, &asked));
            match model(&list, size).as_deref() {
                None => prop_assert!(answer.status == 200 && answer.body == scene.content, "{}", asked),
                Some([one]) => {
                    prop_assert_eq!(answer.status, 206);
                    prop_assert!(answer.body == scene.content[one.clone()], "{}", asked);
                }
                Some(parts) => are_parts(&scene, &answer, parts),
            }
            Ok(())
        });
        result.unwrap();
        let Scene { acr, larder, .. } = scene;
        runtime.block_on(larder.stop());
        drop(acr);
    }
}
