//! The words of the OCI specifications as values: digest, name, tag, reference, media type, manifest, range, error code.
//!
//! Everything here is pure: no I/O, no clock, no settings. Each value has one parser, and a value that exists is valid, so
//! that the other rooms never look at a string twice. Grammars are those of the distribution specification 1.1.1 and the
//! image specification 1.1; sizes and quirks that clients insist on are said where they matter.

mod deed;
mod digest;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod grants;
mod json;
mod manifest;
mod media_type;
mod name;
mod named;
mod pattern;
mod range;
mod shape;
mod signed;

pub use deed::Deed;
pub use digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use error::{Code, ErrorBody, RegistryError};
pub use grants::Grants;
pub use json::each_entry;
pub use manifest::{Descriptor, MAX_CHILDREN, MAX_DEPTH, Manifest, Role, platform};
pub use media_type::{Accept, InvalidMediaType, MediaType};
pub use name::{DOCKER_HUB, InvalidName, InvalidReference, Name, Reference, Registry, Repository, Tag};
pub use named::vouched_blobs;
pub use pattern::RepositoryPattern;
pub use range::{ByteRange, MAX_RANGES, RangeRequest, Ranges, TooManyRanges, Unsatisfiable, resolve_many};
pub use shape::Shape;
pub use signed::payload as signed_payload;

/// The largest manifest that larder takes, in bytes: what containerd accepts (4 MiB and some), above ACR's own 4 MiB.
pub const MAX_MANIFEST: usize = 4_393_216;
