//! Pushing blobs: upstream decides, larder remembers.
//!
//! Every request of an upload is upstream's to answer. The client holds upstream's moving address encrypted (`session_token`), so that
//! any larder with the same key can continue; the bytes are copied to the store while they pass (`tee`), by session and offset
//! (`kept`): where the copy is missing or out of step, the upload continues without. Once upstream has taken the blob, and only
//! then, the copy becomes a blob here (`landing`), if it has that digest, and the repository has it.

mod again;
mod kept;
mod landing;
mod session_token;
mod tee;
mod uploads;

pub(in crate::cache) use again::push_again;
pub(in crate::cache) use landing::{Landing, count_upload};
pub use uploads::Uploaded;
pub(in crate::cache) use uploads::Uploads;
#[cfg(any(test, fuzzing))]
pub use uploads::fuzz;
