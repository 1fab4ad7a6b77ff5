//! Bytes on disk named by digest, and the links that say which repository has them.
//!
//! **Guarantees.** A [`Blob`] is complete and had its digest when it was stored. An [`Ingest`] becomes one only if length and
//! digest hold. Whatever moment the process or the machine stops at, a blob is whole or absent, a link is valid or absent, and
//! under `sync = "commit"` what was reported as stored is there. The files are the truth; the index is a hint that may be lost.
//! Space is reserved before a download begins, and what was not used for longest makes room.
//!
//! **Does not** know upstreams or HTTP, decide who may read, or judge how fresh a tag is.
//!
//! From the outside in: [`Store`] (`handle`) sends each call to the store's threads (`workers`), where `blobs`, `ingest`,
//! `upload`, `links`, `membership`, `givers` and `lists` do the work on what `inner` puts together: `files` (atomic replacement), `space`
//! and `evict` (by the `policy`, sparing the `pins`), `catalogue` (blobs and last use), `pieces` and `check` (checksums, and the
//! check before sending), `index`. `layout` names the paths, `record` is the format of small files, [`disk`] the seam to the file
//! system, `health` what is done while that fails. `open`, `upkeep` and `scrub` are its start and its housekeeping, `verify`
//! looks at it from outside, `inspect` while it is in use, `inventory` (with `platform`) lists it. `docs/disk.md` describes every
//! file, rename and sync.

mod blob;
mod blobs;
mod carrier;
mod catalogue;
mod check;
mod clock;
pub mod disk;
mod error;
mod evict;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod givers;
mod handle;
mod health;
mod hold;
mod imports;
mod index;
mod ingest;
mod inner;
mod inspect;
mod inventory;
mod key;
mod layout;
mod links;
mod lists;
mod membership;
mod open;
mod origins;
mod partials;
mod pieces;
mod pins;
mod platform;
mod policy;
mod record;
mod scrub;
mod space;
mod upkeep;
mod upload;
mod verify;
mod workers;

pub use blob::{Blob, BlobFile};
pub use disk::{Disk, RealDisk};
pub use error::{IngestError, OpenError, Refusal, StoreError, VerifyError};
pub use givers::{Giver, Givers};
pub use handle::{Store, Usage};
pub use health::{Trouble, TroubleKind};
pub use hold::Hold;
pub use ingest::{Ingest, Verified};
pub use inspect::{DamagedBlob, Inspection};
pub use inventory::{RepositoryLinks, StoredReference};
pub use links::TagLink;
pub use lists::{ListKey, StoredList};
pub use membership::Member;
pub use pins::{InvalidPin, Pin};
pub use upload::{Upload, VerifiedUpload};
pub use verify::{Verdict, Verifier};
