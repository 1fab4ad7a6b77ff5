//! What the sources of bodies implement, and why a body breaks.

use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What [`FileBytes::read`] gives.
pub type ReadFuture = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

/// A file whose bytes below some point never change.
pub trait FileBytes: Send + Sync + 'static {
    /// The file itself, where it may be sent by the kernel.
    fn std_file(&self) -> Option<&std::fs::File>;
    /// Up to `len` bytes from `offset`, read where reading may block. No byte means that the file ends there.
    fn read(&self, offset: u64, len: usize) -> ReadFuture;
    /// The file had fewer bytes than announced: the store must check it again.
    fn distrust(&self) {}
}

/// The parts of a file that may be sent now, in order: for a growing file they become ready one after another.
pub trait Extents: Send + 'static {
    /// The next part; it begins where the one before ended. `None`: there is no more.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Extent, BodyError>>>;
}

/// What comes next of a file.
pub enum Extent {
    /// These bytes of it.
    Part(Range<u64>),
    /// Nothing more of the file: everything that is still due comes from here.
    Rest(Box<dyn Chunks>),
}

/// Bytes that come one piece after another.
pub trait Chunks: Send + 'static {
    /// The next piece. `None`: there is no more.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>>;
}

/// Why a body broke. The client sees a connection that ends too early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The file could not be read.
    #[error("cannot read the file of an answer: {0}")]
    Read(#[from] io::Error),
    /// The source ended before the length that was announced.
    #[error("the source of an answer ended {missing} bytes before the announced length")]
    Short {
        /// Bytes announced and not there.
        missing: u64,
    },
    /// The source had more bytes than were announced.
    #[error("the source of an answer has more bytes than the announced length")]
    Long,
    /// A part of a growing file was not the one that follows.
    #[error("the source of an answer released bytes {got:?} of its file where {expected} and following are due")]
    OutOfOrder {
        /// Offset that was due.
        expected: u64,
        /// What came.
        got: Range<u64>,
    },
    /// The source gave up.
    #[error(transparent)]
    Source(Box<dyn std::error::Error + Send + Sync>),
}
