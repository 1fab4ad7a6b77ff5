//! Small files: where they lie, their format, and replacing them atomically.

mod counted;
pub(crate) mod layout;
mod opening;
pub(crate) mod partials;
mod record;
mod small;
pub(crate) mod upload_key;

pub(crate) use opening::{Opened, Opening, earlier_giver};
pub(crate) use record::Record;
pub(crate) use small::{Files, Replaced};
