//! Small files: where they lie, their format, and replacing them atomically.

pub(crate) mod layout;
pub(crate) mod record;
pub(crate) mod small;
pub(crate) mod upload_key;
