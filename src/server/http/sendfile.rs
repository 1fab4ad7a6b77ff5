//! File bytes from the page cache to the socket without a copy, under an HTTP implementation that knows nothing of it.
//!
//! A body hands hyper slices of a read-only mapping that no code reads. hyper queues them and offers them, by address, to
//! the connection's vectored write; an address that lies in one of the connection's mappings becomes `sendfile(2)` at that offset,
//! anything else an ordinary write. Should a path copy a slice after all, the bytes are right and only slower. A mapping outlives
//! every slice of it (each slice holds it), and an address is only looked up while the connection's list holds the mapping too.
//! Mappings are counted; beyond the limit bodies are read instead, since the kernel bounds the mappings of a process.

use super::body_parts::FileBytes;
use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};
use parking_lot::{Mutex, MutexGuard};
use rustix::fs::sendfile;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Mappings at once in the process: a quarter of what Linux allows by default (`vm.max_map_count`), the rest is for others.
const MAPPINGS: usize = 16_384;
/// Distance of the probes for pages in memory: the kernel reads ahead about as much at a time.
const PROBE: u64 = 128 << 10;

/// What sendfile carried since the start.
#[derive(Debug, Default)]
pub struct SendfileStats {
    calls: AtomicU64,
    bytes: AtomicU64,
    mappings: AtomicUsize,
}

impl SendfileStats {
    /// Calls that sent something.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Bytes sent by them.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Mappings that exist now.
    pub fn mappings(&self) -> usize {
        self.mappings.load(Ordering::Relaxed)
    }
}

/// A stretch of a file at an address.
struct Mapping {
    raw: MmapRaw,
    offset: u64,
    file: Arc<dyn FileBytes>,
    stats: Arc<SendfileStats>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.stats.mappings.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bytes of a mapping, as hyper wants them.
struct Mapped(Arc<Mapping>);

impl AsRef<[u8]> for Mapped {
    #[expect(unsafe_code, reason = "a mapping has no safe slice; this is the only place")]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping is readable, has exactly this address and length, and lives as long as `self.0`. It is never written through,
        // and only bytes below the point where `FileBytes` promises that they never change are ever given out.
        unsafe { std::slice::from_raw_parts(self.0.raw.as_ptr(), self.0.raw.len()) }
    }
}

/// The mappings of one connection whose slices may be under way.
pub(in crate::server) struct Live {
    stats: Arc<SendfileStats>,
    mappings: Mutex<Vec<Arc<Mapping>>>,
}

impl Live {
    pub(in crate::server) fn new(stats: Arc<SendfileStats>) -> Arc<Self> {
        Arc::new(Self { stats, mappings: Mutex::default() })
    }

    fn mappings(&self) -> MutexGuard<'_, Vec<Arc<Mapping>>> {
        self.mappings.lock()
    }

    /// Bytes that stand for `range` of the file; `None`: it has to be read. The file may still be shorter than that, as long as no
    /// slice beyond its end is handed on.
    pub(in crate::server) fn map(&self, file: &Arc<dyn FileBytes>, range: &Range<u64>) -> Option<Bytes> {
        let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let std_file = file.std_file()?;
        if self.stats.mappings.fetch_add(1, Ordering::Relaxed) >= MAPPINGS {
            self.stats.mappings.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let Ok(raw) = MmapOptions::new().offset(range.start).len(length).map_raw_read_only(std_file) else {
            self.stats.mappings.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        let (file, stats) = (Arc::clone(file), Arc::clone(&self.stats));
        let mapping = Arc::new(Mapping { raw, offset: range.start, file, stats });
        self.mappings().push(Arc::clone(&mapping));
        Some(Bytes::from_owner(Mapped(mapping)))
    }

    /// Forgets the mappings that no slice holds.
    pub(in crate::server) fn prune(&self) {
        self.mappings().retain(|mapping| Arc::strong_count(mapping) > 1);
    }

    /// The mapping that a slice lies in, and the file's offset of its first byte.
    fn find(&self, slice: &[u8]) -> Option<(Arc<Mapping>, u64)> {
        let address = slice.as_ptr().addr();
        self.mappings().iter().find_map(|mapping| {
            let inside = address.checked_sub(mapping.raw.as_ptr().addr())?;
            let fits = inside.checked_add(slice.len())? <= mapping.raw.len();
            fits.then(|| (Arc::clone(mapping), mapping.offset + inside as u64))
        })
    }

    /// Writes some of the buffers: mapped ones by sendfile, others as they are, so that a head shares packets with what follows.
    pub(in crate::server) fn write(&self, socket: BorrowedFd<'_>, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut plain = 0;
        for buffer in buffers.iter().filter(|buffer| !buffer.is_empty()) {
            match self.find(buffer) {
                None => plain += 1,
                Some((mapping, offset)) if plain == 0 => return self.send(socket, &mapping, offset, buffer),
                Some(_) => return send_plain(socket, buffers, plain, SendFlags::MORE),
            }
        }
        send_plain(socket, buffers, plain, SendFlags::empty())
    }

    fn send(&self, socket: BorrowedFd<'_>, mapping: &Mapping, offset: u64, buffer: &[u8]) -> io::Result<usize> {
        let Some(file) = mapping.file.std_file() else {
            return send_plain(socket, &[IoSlice::new(buffer)], 1, SendFlags::empty());
        };
        let mut at = offset;
        match sendfile(socket, file, Some(&mut at), buffer.len()) {
            Ok(0) => {
                mapping.file.distrust();
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file that is being sent became shorter"))
            }
            Ok(sent) => {
                self.stats.calls.fetch_add(1, Ordering::Relaxed);
                self.stats.bytes.fetch_add(sent as u64, Ordering::Relaxed);
                Ok(sent)
            }
            // Some file systems cannot; the mapping is real, so writing from it is right.
            Err(Errno::INVAL | Errno::NOSYS) => send_plain(socket, &[IoSlice::new(buffer)], 1, SendFlags::empty()),
            Err(error) => {
                if error == Errno::IO {
                    mapping.file.distrust();
                }
                Err(error.into())
            }
        }
    }
}

/// Writes the first `count` buffers that hold something.
fn send_plain(socket: BorrowedFd<'_>, buffers: &[IoSlice<'_>], count: usize, flags: SendFlags) -> io::Result<usize> {
    let end = buffers.iter().enumerate().filter(|(_, buffer)| !buffer.is_empty()).nth(count);
    let buffers = &buffers[..end.map_or(buffers.len(), |(index, _)| index)];
    let flags = flags | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(socket, buffers, &mut SendAncillaryBuffer::default(), flags)?)
}

/// Whether a stretch of a file can be sent without waiting for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Residency {
    Resident,
    Absent,
    /// The file system does not say.
    Unknown,
    /// The file ends before the stretch does.
    BeyondEnd,
}

pub(in crate::server) fn residency(file: &File, range: &Range<u64>) -> io::Result<Residency> {
    let mut probes =
        (range.start..range.end).step_by(usize::try_from(PROBE).unwrap_or(usize::MAX)).chain([range.end - 1]);
    let verdict = probes.find_map(|offset| match probe(file, offset, &mut [0]) {
        Ok(1) => None,
        Ok(_) => Some(Ok(Residency::BeyondEnd)),
        Err(Errno::AGAIN) => Some(Ok(Residency::Absent)),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Some(Ok(Residency::Unknown)),
        Err(error) => Some(Err(error.into())),
    });
    verdict.unwrap_or(Ok(Residency::Resident))
}

/// A stretch of a file, if all of it is in memory.
pub(in crate::server) fn read_now(file: &File, range: &Range<u64>) -> Option<Bytes> {
    let mut bytes = vec![0; usize::try_from(range.end.checked_sub(range.start)?).ok()?];
    (probe(file, range.start, &mut bytes).ok()? == bytes.len()).then(|| bytes.into())
}

fn probe(file: &File, offset: u64, into: &mut [u8]) -> Result<usize, Errno> {
    preadv2(file, &mut [IoSliceMut::new(into)], offset, ReadWriteFlags::NOWAIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ReadFuture;

    struct OnDisk(File);

    impl FileBytes for OnDisk {
        fn std_file(&self) -> Option<&File> {
            Some(&self.0)
        }

        fn read(&self, _: u64, _: usize) -> ReadFuture {
            Box::pin(async { Err(io::Error::other("not read here")) })
        }
    }

    fn file() -> Arc<dyn FileBytes> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100_000).unwrap();
        Arc::new(OnDisk(file))
    }

    #[test]
    fn beyond_the_limit_nothing_is_mapped() {
        let stats = Arc::new(SendfileStats::default());
        stats.mappings.store(MAPPINGS - 1, Ordering::Relaxed);
        let live = Live::new(Arc::clone(&stats));
        let last = live.map(&file(), &(0..100_000));
        assert!(last.is_some());
        assert!(live.map(&file(), &(0..100_000)).is_none());
        assert_eq!(stats.mappings(), MAPPINGS);
        drop(last);
        live.prune();
        assert!(live.map(&file(), &(0..100_000)).is_some());
    }

    #[test]
    fn a_slice_is_found_at_its_offset_and_other_bytes_are_not() {
        let live = Live::new(Arc::default());
        let bytes = live.map(&file(), &(5000..9000)).unwrap();
        let found = |slice: &[u8]| live.find(slice).map(|(_, offset)| offset);
        assert_eq!(found(&bytes), Some(5000));
        assert_eq!(found(&bytes.slice(17..18)), Some(5017));
        assert_eq!(found(&bytes.slice(3999..)), Some(8999));
        assert_eq!(found(b"elsewhere"), None);
    }
}
