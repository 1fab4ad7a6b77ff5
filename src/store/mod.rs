//! Bytes on disk named by digest, and the links that say which repository has them.
//!
//! **Guarantees.** A [`Blob`] is complete and had its digest when it was stored. An [`Ingest`] becomes one only if length and
//! digest hold. Whatever moment the process or the machine stops at, a blob is whole or absent, a link is valid or absent, and
//! under `sync = "commit"` what was reported as stored is there. The files are the truth; the index is a hint that may be lost.
//! Space is reserved before a download begins, and what was not used for longest makes room.
//!
//! **Does not** know upstreams or HTTP, decide who may read, or judge how fresh a tag is.

mod account;
mod api;
mod blobs;
pub mod disk;
mod error;
mod evict;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod index;
mod integrity;
mod jobs;
mod lifecycle;
mod links;
mod parts;
mod receive;

pub use api::{Store, Usage};
pub use blobs::{Blob, BlobFile, Giver, Givers};
pub use disk::{Disk, RealDisk};
pub use error::{IngestError, NoRoom, OpenError, StoreError, VerifyError};
pub use evict::{AwayRegistries, Hold, InvalidPin, Pin};
pub use integrity::{DamagedBlob, Inspection, Verdict, Verifier};
pub use jobs::{Trouble, TroubleKind};
pub use links::{ListKey, Member, RepositoryLinks, StoredList, StoredReference, TagLink};
pub use receive::{Ingest, Upload, Verified};
