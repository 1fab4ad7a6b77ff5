//! Where the system has no sendfile that larder knows: every body is read, no socket is special.

use super::body_parts::FileBytes;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// What sendfile carried since the start: nothing.
#[derive(Debug, Default)]
pub struct SendfileStats {}

impl SendfileStats {
    /// Calls that sent something.
    pub fn calls(&self) -> u64 {
        0
    }

    /// Bytes sent by them.
    pub fn bytes(&self) -> u64 {
        0
    }

    /// Mappings that exist now.
    pub fn mappings(&self) -> usize {
        0
    }
}

pub(in crate::server) struct Live {}

impl Live {
    pub(in crate::server) fn new(_: Arc<SendfileStats>) -> Arc<Self> {
        Arc::new(Self {})
    }

    pub(in crate::server) fn map(&self, _: &Arc<dyn FileBytes>, _: &Range<u64>) -> Option<Bytes> {
        None
    }

    pub(in crate::server) fn prune(&self) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(dead_code, reason = "the other answers are given where pages can be probed")]
pub(in crate::server) enum Residency {
    Resident,
    Absent,
    Unknown,
    BeyondEnd,
}

pub(in crate::server) fn residency(_: &File, _: &Range<u64>) -> io::Result<Residency> {
    Ok(Residency::Unknown)
}

pub(in crate::server) fn read_now(_: &File, _: &Range<u64>) -> Option<Bytes> {
    None
}
