//! Small files: where they lie, their format, and replacing them atomically.

mod counted;
pub(crate) mod layout;
pub(crate) mod partials;
mod record;
mod small;
pub(crate) mod upload_key;

pub(crate) use record::Record;
pub(crate) use small::{Files, Replaced, read};
