//! Several parts of a blob in one answer: `multipart/byteranges` (RFC 9110, section 14.6), every part as it was asked for.
//!
//! The boundary is made of the blob's own digest: the same request gets the same bytes, and a blob that has its own digest in
//! it cannot be made.

use super::content::{self, PollAdapter};
use crate::cache::{Content, MultiRange};
use crate::oci::{ByteRange, Digest};
use crate::server::http::body::{Bodies, Body};
use crate::server::http::body_parts::BodyError;
use std::task::{Context, Poll, ready};

/// Hexadecimal digits of the digest in the boundary, which may have 70 characters in all.
const DIGITS: usize = 40;

/// The answer's `Content-Type`.
pub(in crate::server) fn content_type(digest: &Digest) -> String {
    format!("multipart/byteranges; boundary={}", boundary(digest))
}

/// The answer's body, of known length.
pub(in crate::server) fn body(parts: Box<MultiRange>) -> Body {
    let frame = Frame { boundary: boundary(parts.digest()), total: parts.length() };
    let ranges = parts.ranges().to_vec();
    let heads: u64 = (0..).zip(&ranges).map(|(index, range)| frame.head(index, *range).len() as u64).sum();
    let bytes: u64 = ranges.iter().map(|range| range.len()).sum();
    let length = heads + bytes + frame.end().len() as u64;
    Body::chain(length, Multipart { frame, ranges, index: 0, due: Due::Head, parts: PollAdapter::of(parts) })
}

fn boundary(digest: &Digest) -> String {
    let mut digits = digest.hex();
    digits.truncate(DIGITS);
    format!("larder-{digits}")
}

/// What stands around the parts.
struct Frame {
    boundary: String,
    /// Length of the whole blob.
    total: u64,
}

impl Frame {
    fn head(&self, index: usize, range: ByteRange) -> String {
        let line = if index == 0 { "" } else { "\r\n" };
        let (boundary, range) = (&self.boundary, range.content_range(self.total));
        format!("{line}--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: {range}\r\n\r\n")
    }

    fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }
}

struct Multipart {
    frame: Frame,
    ranges: Vec<ByteRange>,
    /// Parts whose head is out.
    index: usize,
    due: Due,
    parts: PollAdapter<Box<MultiRange>, Content>,
}

enum Due {
    /// The head of the next part, or the end behind the last one.
    Head,
    Part,
    Nothing,
}

impl Bodies for Multipart {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Body, BodyError>>> {
        match self.due {
            Due::Head => {
                let text = if let Some(range) = self.ranges.get(self.index) {
                    self.due = Due::Part;
                    self.frame.head(self.index, *range)
                } else {
                    self.due = Due::Nothing;
                    self.frame.end()
                };
                self.index += 1;
                Poll::Ready(Some(Ok(Body::full(text.into()))))
            }
            Due::Part => {
                let part = ready!(self.parts.poll(cx, |mut parts| async move {
                    let next = parts.next().await;
                    (parts, next)
                }));
                self.due = Due::Head;
                Poll::Ready(part.map(|part| part.map(content::body)))
            }
            Due::Nothing => Poll::Ready(None),
        }
    }
}
