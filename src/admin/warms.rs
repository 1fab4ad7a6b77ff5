//! `/v1/warm?reference=R`: fetches a reference ahead. The answer is a line of JSON for each step, the last one says how it ended.

use super::Admin;
use super::control::{argument, reply};
use crate::bundle::{self, Extent, Platforms};
use crate::cache::Purge;
use crate::oci::{Reference, Repository};
use crate::server::{Body, BodyError, Chunks};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Steps that wait for a slow reader; then the fetching waits, too.
const WAITING: usize = 256;

impl Admin {
    pub(super) fn warm(&self, query: Option<&str>) -> Response<Body> {
        let reference = argument(query, "reference");
        let (repository, reference) = match self.find(&reference) {
            Ok(Purge::Tag(repository, tag)) => (repository, Reference::Tag(tag)),
            Ok(Purge::Manifest(repository, digest)) => (repository, Reference::Digest(digest)),
            Ok(_) => {
                let text =
                    format!("'{reference}' names no tag and no digest: write repository:tag or repository@digest");
                return reply(StatusCode::BAD_REQUEST, &json!({ "error": text }));
            }
            Err((status, message)) => return reply(status, &json!({ "error": message })),
        };
        let platforms: Vec<String> =
            argument(query, "platforms").split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect();
        let extent = Extent {
            platforms: Platforms::of(&platforms),
            referrers: argument(query, "referrers") == "true",
            dry_run: argument(query, "dry_run") == "true",
        };
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(run(self.clone(), repository, reference, extent, sender));
        Response::new(Body::stream(None, Lines(receiver)))
    }
}

async fn run(admin: Admin, repository: Repository, reference: Reference, extent: Extent, lines: mpsc::Sender<Value>) {
    let (sender, mut steps) = mpsc::channel(WAITING);
    let (told, gone) = (lines.clone(), lines.clone());
    let telling = tokio::spawn(async move {
        while let Some(step) = steps.recv().await {
            let _ = told.send(serde_json::to_value(step).unwrap_or_default()).await;
        }
    });
    let warming = bundle::warm(&admin.cache, &admin.store, &repository, &reference, &extent, &sender);
    let last = tokio::select! {
        result = warming => match result {
            Ok(warmed) if warmed.unkept > 0 => json!({ "event": "failed", "error": unkept(warmed.unkept) }),
            Ok(warmed) => json!({ "event": "done", "bytes": warmed.bytes, "missing_bytes": warmed.missing }),
            Err(error) => json!({ "event": "failed", "error": error.to_string() }),
        },
        // The command was stopped; what has begun to come is finished by its fill.
        () = gone.closed() => return,
    };
    drop(sender);
    let _ = telling.await;
    let _ = lines.send(last).await;
}

/// What is said where there was no room.
pub(super) fn unkept(blobs: u64) -> String {
    format!(
        "{blobs} of its blobs came and could not be kept: the store has no room for them, or its disk fails; `larder status` says which"
    )
}

struct Lines(mpsc::Receiver<Value>);

impl Chunks for Lines {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(format!("{line}\n").into())))
    }
}
