//! The key that seals upload sessions (`upload-key`): 64 hexadecimal digits, readable by their owner alone.

use super::Files;
use super::layout;
use crate::store::disk::{Access, parent};
use crate::store::error::StoreError;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

const BYTES: usize = 32;

/// The key, if there is one. A file that holds no key is an operator's mistake and is not overwritten.
pub(crate) fn read(files: &Files) -> Result<Option<[u8; BYTES]>, StoreError> {
    let path = Path::new(layout::UPLOAD_KEY);
    let Some(content) = files.read(path)? else { return Ok(None) };
    let wrong = "it does not hold 64 hexadecimal digits: copy the file of the other larder again, or remove this one";
    let invalid = || StoreError::io("read", path)(io::Error::new(io::ErrorKind::InvalidData, wrong));
    parse(&content).map(Some).ok_or_else(invalid)
}

pub(crate) fn make(files: &Files) -> Result<[u8; BYTES], StoreError> {
    let path = Path::new(layout::UPLOAD_KEY);
    let mut key = [0; BYTES];
    aws_lc_rs::rand::fill(&mut key)
        .map_err(|_| StoreError::io("make", path)(io::Error::other("the system gives no random bytes")))?;
    let mut text = String::with_capacity(2 * BYTES + 1);
    for byte in key {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    let temporary = files.temporary();
    let file = files.disk.open(&temporary, Access::CreateNew).map_err(StoreError::io("create", &temporary))?;
    file.write_at(text.as_bytes(), 0).map_err(StoreError::io("write", &temporary))?;
    file.sync_data().map_err(StoreError::io("sync", &temporary))?;
    files.disk.rename(&temporary, path).map_err(StoreError::io("rename to its place", path))?;
    files.sync_folder(parent(path))?;
    Ok(key)
}

fn parse(content: &[u8]) -> Option<[u8; BYTES]> {
    let text = std::str::from_utf8(content).ok()?.trim();
    if text.len() != 2 * BYTES || !text.is_ascii() {
        return None;
    }
    let mut key = [0; BYTES];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(key)
}
