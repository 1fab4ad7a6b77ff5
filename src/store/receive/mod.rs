//! Content on its way in: downloads ([`Ingest`]) and uploads ([`Upload`]).
//!
//! Both are a file that one writer fills and that is hashed on the way ([`content`]). A download knows its digest from the
//! beginning: its file is kept for a later resume. An upload learns it at the end: dropped before, its file is removed.

mod content;
mod ingest;
mod intake;
mod receiver;
mod upload;

pub use ingest::Ingest;
pub(crate) use intake::Intake;
pub use receiver::Verified;
pub use upload::Upload;
