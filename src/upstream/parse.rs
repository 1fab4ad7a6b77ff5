//! Large documents are read on a few threads of their own: what takes long to read must not hold up other connections.

use crate::oci::Manifest;
use bytes::Bytes;
use tokio::sync::Semaphore;

/// What is longer is read beside the runtime.
const LONG: usize = 64 << 10;
/// So many are read at once.
static READERS: Semaphore = Semaphore::const_new(2);

/// What a manifest refers to, as [`Manifest::parse`] says it.
pub async fn parse(content: &Bytes) -> Option<Manifest> {
    read(content, Manifest::parse).await
}

/// What `reader` makes of a document.
pub(super) async fn read<T: Send + 'static>(content: &Bytes, reader: fn(&[u8]) -> Option<T>) -> Option<T> {
    if content.len() <= LONG {
        return reader(content);
    }
    let _reader = READERS.acquire().await.ok()?;
    let content = content.clone();
    tokio::task::spawn_blocking(move || reader(&content)).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_manifest_is_read_beside_the_runtime_and_no_more_than_two_at_once() {
        let long = Bytes::from(format!(r#"{{"x":"{}","mediaType":"a/b"}}"#, "x".repeat(LONG)));
        let taken = READERS.acquire_many(2).await.unwrap();
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(50), parse(&long)).await;
        assert!(waiting.is_err(), "two are being read");
        assert!(parse(&Bytes::from_static(b"{}")).await.is_some(), "a short one waits for nobody");
        drop(taken);
        assert_eq!(parse(&long).await.unwrap().media_type.unwrap().as_str(), "a/b");
    }
}
