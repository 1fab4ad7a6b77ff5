//! Every way to push a blob, for one algorithm, and ranges.

use crate::conformance::content::digest;
use crate::conformance::registry::{OTHER_REPOSITORY, REPOSITORY, Registry, ending, header, location, status};
use crate::conformance::report::{Outcome, Report, ensure};
use crate::harness::simulator::samples::incompressible;
use bytes::Bytes;

const OCTETS: &str = "application/octet-stream";
const CHUNK: usize = 1024;

struct Blob {
    digest: String,
    content: Bytes,
}

impl Blob {
    fn of(algorithm: &str, seed: u64, size: usize) -> Self {
        let seed = seed * 2 + u64::from(algorithm == "sha512");
        let content = incompressible(seed * 7919 + 3, size);
        Self { digest: digest(algorithm, &content), content }
    }

    /// Its digest is that of what it was before something was added.
    fn damaged(mut self) -> Self {
        self.content = [&self.content[..], b"oh no"].concat().into();
        self
    }
}

pub async fn run(registry: &Registry, algorithm: &str, report: &mut Report) {
    let small = |seed| Blob::of(algorithm, seed, 512);
    // Three chunks, the last one not whole.
    let long = |seed| Blob::of(algorithm, seed, 3 * CHUNK - 5);
    let prefix = format!("{algorithm} blobs");
    report.check(&format!("{prefix}/get-missing"), registry.blob_is_missing(&small(0).digest).await);

    let blob = small(1);
    let pushed = registry.blob_post_only(&blob.digest, &blob.content, false).await;
    ends(registry, report, &format!("{prefix}/post only"), "blob-post-only", &blob, pushed).await;
    let blob = small(2);
    let pushed = registry.blob_post_put(REPOSITORY, &blob.digest, &blob.content, false).await;
    ends(registry, report, &format!("{prefix}/post+put"), "blob-post-put", &blob, pushed).await;
    let blob = small(3);
    let pushed = chunked(registry, &blob, Chunked::default()).await;
    ends(registry, report, &format!("{prefix}/chunked single"), "blob-patch-chunked", &blob, pushed).await;
    let blob = small(4);
    let pushed = registry.blob_stream(&blob.digest, &blob.content, false).await;
    ends(registry, report, &format!("{prefix}/stream"), "blob-patch-stream", &blob, pushed).await;

    for (name, check, seed, from) in
        [("mount", "blob-mount", 5, Some(OTHER_REPOSITORY)), ("mount anonymous", "blob-mount-anonymous", 6, None)]
    {
        let (blob, name) = (small(seed), format!("{prefix}/{name}"));
        let pushed = registry.blob_post_put(OTHER_REPOSITORY, &blob.digest, &blob.content, false).await;
        report.check(&format!("{name}/blob-post-put"), pushed);
        // What is mounted anonymously may be asked for instead.
        let mounted = registry.blob_mount(from, &blob.digest, &blob.content).await;
        let mounted = mounted.and_then(|mounted| ensure(mounted || from.is_none(), || "not mounted".to_owned()));
        ends(registry, report, &name, check, &blob, mounted).await;
        let deleted = registry.blob_delete(OTHER_REPOSITORY, &blob.digest).await;
        report.check(&format!("{name}/blob-delete"), deleted);
    }
    let blob = small(7);
    let mounted = registry.blob_mount(Some(OTHER_REPOSITORY), &blob.digest, &blob.content).await;
    let mounted = mounted.and_then(|mounted| ensure(!mounted, || "what is not there was mounted".to_owned()));
    ends(registry, report, &format!("{prefix}/mount missing"), "blob-mount", &blob, mounted).await;

    let blob = small(8);
    report.check(&format!("{prefix}/post cancel/blob-post-cancel"), cancelled(registry).await);
    let deleted = registry.blob_delete(REPOSITORY, &blob.digest).await;
    report.check(&format!("{prefix}/post cancel/blob-delete"), deleted);

    for (name, seed, put_last, out_of_order) in [
        ("chunked multi", 9, false, false),
        ("chunked multi and put chunk", 10, true, false),
        ("chunked out-of-order", 11, false, true),
        ("chunked out-of-order and put chunk", 12, true, true),
    ] {
        let blob = long(seed);
        let pushed = chunked(registry, &blob, Chunked { put_last, out_of_order, wrong: false }).await;
        ends(registry, report, &format!("{prefix}/{name}"), "blob-patch-chunked", &blob, pushed).await;
    }
    ranges(registry, report, &format!("{prefix}/range requests"), &Blob::of(algorithm, 13, 2048)).await;
    for (name, content) in [("empty", ""), ("emptyJSON", "{}")] {
        let blob = Blob { digest: digest(algorithm, content.as_bytes()), content: content.into() };
        let pushed = registry.blob_post_put(REPOSITORY, &blob.digest, &blob.content, false).await;
        ends(registry, report, &format!("{prefix}/{name}"), "blob-post-put", &blob, pushed).await;
    }

    let Blob { digest, content } = long(14).damaged();
    let refused = registry.blob_post_only(&digest, &content, true).await;
    report.check(&format!("{prefix}/bad digest post only/blob-post-only"), refused);
    let Blob { digest, content } = long(15).damaged();
    let refused = registry.blob_post_put(REPOSITORY, &digest, &content, true).await;
    report.check(&format!("{prefix}/bad digest post+put/blob-post-put"), refused);
    for (name, seed, put_last) in [("bad digest chunked", 16, false), ("bad digest chunked and put chunk", 17, true)] {
        let refused =
            chunked(registry, &long(seed).damaged(), Chunked { put_last, wrong: true, ..Chunked::default() }).await;
        report.check(&format!("{prefix}/{name}/blob-patch-chunked"), refused);
    }
    let Blob { digest, content } = long(18).damaged();
    let refused = registry.blob_stream(&digest, &content, true).await;
    report.check(&format!("{prefix}/bad digest stream/blob-patch-stream"), refused);
}

/// After a push: it is there, and can be deleted.
async fn ends(registry: &Registry, report: &mut Report, name: &str, check: &str, blob: &Blob, pushed: Outcome) {
    report.check(&format!("{name}/{check}"), pushed);
    report.check(&format!("{name}/blob-head"), registry.blob_head(&blob.digest, &blob.content).await);
    report.check(&format!("{name}/blob-get"), registry.blob_get(&blob.digest, &blob.content).await);
    report.check(&format!("{name}/blob-delete"), registry.blob_delete(REPOSITORY, &blob.digest).await);
}

/// A session that is given up is gone.
async fn cancelled(registry: &Registry) -> Outcome {
    let session = registry.begin(REPOSITORY).await?;
    status(&registry.call("DELETE", &session).send().await, &[204])?;
    status(&registry.call("GET", &session).send().await, &[404])
}

async fn ranges(registry: &Registry, report: &mut Report, name: &str, blob: &Blob) {
    let pushed = registry.blob_post_put(REPOSITORY, &blob.digest, &blob.content, false).await;
    report.check(&format!("{name}/blob-post-put"), pushed);
    for (range, part) in [
        ("500-1499", Some((500, 1499))),
        ("500-", Some((500, 2047))),
        ("-500", Some((1548, 2047))),
        ("2000-5000", Some((2000, 2047))),
        ("500-0", None),
        ("5000-10000", None),
    ] {
        let got = registry.blob_range(&blob.digest, &blob.content, &format!("bytes={range}"), part).await;
        report.check(&format!("{name}/range {range}"), got);
    }
    report.check(&format!("{name}/blob-delete"), registry.blob_delete(REPOSITORY, &blob.digest).await);
}

#[derive(Clone, Copy, Default)]
struct Chunked {
    /// The last chunk comes with the `PUT`.
    put_last: bool,
    /// Before each chunk one is sent that does not follow.
    out_of_order: bool,
    /// The content is not that of the digest.
    wrong: bool,
}

async fn chunked(registry: &Registry, blob: &Blob, how: Chunked) -> Outcome {
    let (size, mut session, mut start) = (blob.content.len(), registry.begin(REPOSITORY).await?, 0);
    let send = |target: &str, method: &str, start: usize| {
        let end = (start + CHUNK).min(size);
        let call = registry.call(method, target).line("Content-Type", OCTETS);
        let call = call.line("Content-Range", &format!("{start}-{}", end - 1));
        (call.body(blob.content.slice(start..end)).send(), end)
    };
    while start < size {
        if how.out_of_order {
            let elsewhere = if start + CHUNK < size { start + CHUNK } else { 0 };
            let last = how.put_last && elsewhere + CHUNK >= size;
            let (target, method) =
                if last { (ending(&session, &blob.digest), "PUT") } else { (session.clone(), "PATCH") };
            status(&send(&target, method, elsewhere).0.await, &[416])?;
            let progress = registry.call("GET", &session).send().await;
            status(&progress, &[204])?;
            if start > 0 {
                header(&progress, "range", &format!("0-{}", start - 1))?;
            }
            session = location(&progress)?;
        }
        let last = how.put_last && start + CHUNK >= size;
        let (target, method) = if last { (ending(&session, &blob.digest), "PUT") } else { (session.clone(), "PATCH") };
        let (answer, end) = send(&target, method, start);
        let answer = answer.await;
        if last {
            return registry.blob_ends(&answer, &blob.digest, &blob.content, how.wrong).await;
        }
        status(&answer, &[202])?;
        header(&answer, "range", &format!("0-{}", end - 1))?;
        (session, start) = (location(&answer)?, end);
    }
    let answer = registry.call("PUT", &ending(&session, &blob.digest)).line("Content-Length", "0").send().await;
    registry.blob_ends(&answer, &blob.digest, &blob.content, how.wrong).await
}
