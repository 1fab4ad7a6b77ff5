//! Complete blobs: which there are, opening and reading them, what shows that they are sound, and who gave them.
//!
//! A thread that changes the file of a blob holds a [`DigestGuard`](locks::DigestGuard). No room may be made meanwhile, since
//! that locks the digests of what it removes: nothing here can, as none of these types is given an evictor.

mod blob;
mod check;
mod clock;
mod documents;
mod entry;
mod giver_records;
mod givers;
mod last_use;
mod locks;
mod pieces;
mod policy;
mod shelf;
mod soundness;
mod table;

pub use blob::{Blob, BlobFile};
pub(crate) use documents::Documents;
pub(crate) use entry::{BlobEntry, Registries, millis};
pub(crate) use giver_records::GiverRecords;
pub use givers::{Giver, Givers};
pub(crate) use last_use::LastUse;
pub(crate) use pieces::{PIECE, Pieces, Rehash, Summing};
pub(crate) use policy::sort as sort_for_eviction;
pub(crate) use shelf::Blobs;
pub(crate) use table::BlobTable;
