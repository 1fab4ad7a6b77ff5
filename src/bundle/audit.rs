//! What a store holds, for a report that is kept: every tag with its digest and size, every content with its size.

use crate::store::{Store, StoreError};
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::Instant;

/// How long a store may take to count what it holds, and how often that is looked at.
const COUNTED_WITHIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// Lines of text, sorted: `tag <reference> <digest> <bytes> <contents that are not here>`, `blob <digest> <bytes>`.
pub async fn audit(store: &Store) -> Result<String, StoreError> {
    // What a start has not counted yet is not known yet.
    let end = Instant::now() + COUNTED_WITHIN;
    while !store.usage().exact && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
    let mut text = String::new();
    let mut references = store.references().await?;
    references.sort_by_key(|it| (it.repository.to_string(), it.tag.to_string()));
    for it in references {
        let _ = writeln!(text, "tag {}:{} {} {} {}", it.repository, it.tag, it.digest, it.bytes, it.missing);
    }
    let mut digests: Vec<_> = store.digests().into_iter().collect();
    digests.sort_unstable();
    for digest in digests {
        if let Some(bytes) = store.length(&digest) {
            let _ = writeln!(text, "blob {digest} {bytes}");
        }
    }
    Ok(text)
}
