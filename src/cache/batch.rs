use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// Bytes that are gathered for one write: large enough that a write costs little, small enough to stay in the processor's cache
/// between hashing and writing.
const BATCH: usize = 512 << 10;

/// What has arrived, without waiting for more than the first chunk of it.
pub(super) async fn next_batch(chunks: &mut mpsc::Receiver<Bytes>) -> Option<Bytes> {
    let first = chunks.recv().await?;
    let Ok(second) = chunks.try_recv() else { return Some(first) };
    let mut batch = BytesMut::with_capacity(BATCH.max(first.len() + second.len()));
    batch.extend_from_slice(&first);
    batch.extend_from_slice(&second);
    while batch.len() < BATCH
        && let Ok(chunk) = chunks.try_recv()
    {
        batch.extend_from_slice(&chunk);
    }
    Some(batch.freeze())
}
