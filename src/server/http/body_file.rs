//! A file's way into a body: mapped pieces that the kernel sends itself, or pieces that are read.
//!
//! A mapped piece is handed on only when its pages are in memory (they are probed without blocking, and read in the store's own
//! threads otherwise), so that sending it never waits for a disk. Pieces that are read, for TLS and HTTP/2, are small while they are
//! in memory, since each waiting client holds some of them; otherwise they are read in the store's threads, one piece ahead of the
//! connection. Small files are read at once: that is cheaper than mapping them.

use super::body_parts::{BodyError, Chunks, Extent, Extents, FileBytes, ReadFuture};
use super::sendfile::{Live, Residency, read_now, residency};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Bytes of a mapped piece: one call of sendfile, and what one download may take before others have a turn.
const MAPPED_PIECE: u64 = 512 << 10;
/// Bytes of a piece that is read from the disk; two of them are in memory per download.
const READ_PIECE: u64 = 256 << 10;
/// Bytes of a piece that is copied from the page cache.
const COPIED_PIECE: u64 = 32 << 10;
/// Up to here one read is cheaper than a mapping.
const SMALL: u64 = 32 << 10;

pub(in crate::server) struct FileSource {
    file: Arc<dyn FileBytes>,
    total: Range<u64>,
    /// End of what may be sent now.
    released: u64,
    extents: Option<Box<dyn Extents>>,
    /// Set when the file is given up for another source.
    rest: Option<Box<dyn Chunks>>,
    live: Option<Arc<Live>>,
    way: Way,
}

enum Way {
    Undecided,
    Mapped { bytes: Bytes, start: u64, warming: Option<(u64, ReadFuture)> },
    Read(Ahead),
}

/// The one read ahead.
enum Ahead {
    Nothing,
    Running(ReadFuture),
    Done(Result<Bytes, BodyError>),
}

type Piece = Poll<Option<Result<Bytes, BodyError>>>;

impl FileSource {
    pub(in crate::server) fn new(
        file: Arc<dyn FileBytes>,
        total: Range<u64>,
        extents: Option<Box<dyn Extents>>,
    ) -> Self {
        let released = if extents.is_some() { total.start } else { total.end };
        Self { file, total, released, extents, rest: None, live: None, way: Way::Undecided }
    }

    pub(in crate::server) fn send_by(&mut self, live: Arc<Live>) {
        self.live = Some(live);
    }

    pub(in crate::server) fn poll_next(&mut self, cx: &mut Context<'_>) -> Piece {
        loop {
            if self.total.is_empty() {
                return Poll::Ready(None);
            }
            return match self.way {
                Way::Undecided => match self.decide() {
                    Some(bytes) => Poll::Ready(Some(Ok(bytes))),
                    None => continue,
                },
                Way::Mapped { .. } => match ready!(self.poll_mapped(cx)) {
                    Ok(Some(bytes)) => Poll::Ready(Some(Ok(bytes))),
                    Ok(None) => continue,
                    Err(error) => Poll::Ready(Some(Err(error))),
                },
                Way::Read(_) => self.poll_read(cx).map(Some),
            };
        }
    }

    /// Chooses the way; a small file that is in memory is there at once.
    fn decide(&mut self) -> Option<Bytes> {
        let length = self.total.end - self.total.start;
        if length <= SMALL && self.extents.is_none() {
            if let Some(bytes) = self.file.std_file().and_then(|file| read_now(file, &self.total)) {
                self.total.start = self.total.end;
                return Some(bytes);
            }
        } else if let Some(bytes) = self.live.as_ref().and_then(|live| live.map(&self.file, &self.total)) {
            self.way = Way::Mapped { bytes, start: self.total.start, warming: None };
            return None;
        }
        self.way = Way::Read(Ahead::Nothing);
        None
    }

    /// `None`: look again, the way has changed.
    fn poll_mapped(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let warm = match &mut self.way {
            Way::Mapped { warming: Some((end, read)), .. } => {
                let end = *end;
                let read = ready!(read.as_mut().poll(cx));
                if read?.is_empty() {
                    return Poll::Ready(Err(self.short()));
                }
                Some(end)
            }
            _ => None,
        };
        let piece = match warm {
            Some(end) => self.total.start..end,
            None => ready!(self.poll_released(MAPPED_PIECE, cx))?,
        };
        let residency = match (warm, self.file.std_file()) {
            (Some(_), _) => Residency::Resident,
            (None, Some(file)) => residency(file, &piece)?,
            (None, None) => Residency::Unknown,
        };
        let Way::Mapped { bytes, start, warming } = &mut self.way else { return Poll::Ready(Ok(None)) };
        match residency {
            Residency::Resident => {
                let from = usize::try_from(piece.start - *start).map_err(std::io::Error::other)?;
                let to = usize::try_from(piece.end - *start).map_err(std::io::Error::other)?;
                *warming = None;
                self.total.start = piece.end;
                Poll::Ready(Ok(Some(bytes.slice(from..to))))
            }
            Residency::Absent => {
                *warming = Some((piece.end, self.file.read(piece.start, length(&piece))));
                Poll::Ready(Ok(None))
            }
            Residency::Unknown => {
                self.way = Way::Read(Ahead::Nothing);
                Poll::Ready(Ok(None))
            }
            Residency::BeyondEnd => Poll::Ready(Err(self.short())),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, BodyError>> {
        if matches!(self.way, Way::Read(Ahead::Nothing)) {
            let piece = ready!(self.poll_released(COPIED_PIECE, cx))?;
            if let Some(bytes) = self.file.std_file().and_then(|file| read_now(file, &piece)) {
                self.total.start = piece.end;
                return Poll::Ready(Ok(bytes));
            }
            let piece = ready!(self.poll_released(READ_PIECE, cx))?;
            self.way = Way::Read(Ahead::Running(self.file.read(piece.start, length(&piece))));
        }
        let Way::Read(ahead) = &mut self.way else { return Poll::Ready(Err(self.short())) };
        let mut bytes = ready!(ahead.poll(cx))?;
        *ahead = Ahead::Nothing;
        if bytes.is_empty() {
            return Poll::Ready(Err(self.short()));
        }
        let most = usize::try_from(self.released - self.total.start).unwrap_or(usize::MAX);
        bytes.truncate(most);
        self.total.start += bytes.len() as u64;
        self.read_ahead(cx);
        Poll::Ready(Ok(bytes))
    }

    /// Begins the next read, so that it runs while the connection sends.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        if self.total.is_empty() {
            return;
        }
        let mut ahead = match self.poll_released(READ_PIECE, cx) {
            Poll::Ready(Ok(piece)) if self.is_near(&piece) => Ahead::Nothing,
            Poll::Ready(Ok(piece)) => Ahead::Running(self.file.read(piece.start, length(&piece))),
            Poll::Ready(Err(error)) => Ahead::Done(Err(error)),
            Poll::Pending => Ahead::Nothing,
        };
        if let Ahead::Running(read) = &mut ahead
            && let Poll::Ready(done) = read.as_mut().poll(cx)
        {
            ahead = Ahead::Done(done.map_err(BodyError::from));
        }
        self.way = Way::Read(ahead);
    }

    /// Whether the beginning of a piece is in memory, so that it need not be read ahead.
    fn is_near(&self, piece: &Range<u64>) -> bool {
        let beginning = piece.start..piece.end.min(piece.start + COPIED_PIECE);
        let residency = self.file.std_file().map(|file| residency(file, &beginning));
        matches!(residency, Some(Ok(Residency::Resident)))
    }

    /// What follows and may be sent, at most `most` bytes of it.
    fn poll_released(&mut self, most: u64, cx: &mut Context<'_>) -> Poll<Result<Range<u64>, BodyError>> {
        while self.released <= self.total.start {
            let Some(extents) = &mut self.extents else { return Poll::Ready(Err(self.short())) };
            match ready!(extents.poll_next(cx)) {
                Some(Ok(Extent::Part(part))) if part.start == self.released && part.end <= self.total.end => {
                    self.released = self.released.max(part.end);
                }
                Some(Ok(Extent::Part(got))) => {
                    return Poll::Ready(Err(BodyError::OutOfOrder { expected: self.released, got }));
                }
                Some(Ok(Extent::Rest(rest))) => {
                    self.rest = Some(rest);
                    return Poll::Ready(Err(self.short()));
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(self.short())),
            }
        }
        Poll::Ready(Ok(self.total.start..self.released.min(self.total.start + most)))
    }

    /// Where the bytes come from that the file will not have. To be asked after each piece: the piece itself is then an error.
    pub(in crate::server) fn take_rest(&mut self) -> Option<Box<dyn Chunks>> {
        // A read ahead may have met it while a piece was still to be sent.
        if matches!(self.way, Way::Read(Ahead::Done(_))) { None } else { self.rest.take() }
    }

    fn short(&self) -> BodyError {
        self.file.distrust();
        BodyError::Short { missing: self.total.end - self.total.start }
    }
}

impl Ahead {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, BodyError>> {
        match std::mem::replace(self, Self::Nothing) {
            Self::Nothing => Poll::Ready(Ok(Bytes::new())),
            Self::Done(result) => Poll::Ready(result),
            Self::Running(mut read) => match read.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(result.map_err(BodyError::from)),
                Poll::Pending => {
                    *self = Self::Running(read);
                    Poll::Pending
                }
            },
        }
    }
}

fn length(piece: &Range<u64>) -> usize {
    usize::try_from(piece.end - piece.start).unwrap_or(usize::MAX)
}
