//! Packed charts (`.tgz`): what their `Chart.yaml`, lock files and the charts within say. Templates are not rendered: Helm does that.

use super::{LONGEST, Reading};
use std::io::{Error, ErrorKind, Read as _};

/// The files of a chart that name images or charts.
const FILES: [&str; 6] =
    ["chart.yaml", "chart.lock", "requirements.lock", "images.lock", "images.lock.yaml", "images.yaml"];

/// Reads a packed chart, of which no more is unpacked than a list may have.
pub(super) fn read(bytes: &[u8], variable: &dyn Fn(&str) -> Option<String>) -> Result<Reading, Error> {
    let wrong = |error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::InvalidData, format!("it is packed, and no chart that can be read: {error}"))
    };
    let unpacked = flate2::read::GzDecoder::new(bytes).take(LONGEST as u64);
    let mut archive = ::tar::Archive::new(unpacked);
    let mut reading = Reading::of("packed Helm chart");
    let mut files = 0_usize;
    for entry in archive.entries().map_err(|error| wrong(&error))? {
        let mut entry = entry.map_err(|error| wrong(&error))?;
        files += 1;
        let path = entry.path_bytes().to_ascii_lowercase();
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if !FILES.iter().any(|file| file.as_bytes() == name) {
            continue;
        }
        let mut text = String::new();
        if entry.read_to_string(&mut text).is_ok() {
            let Reading { references, left, .. } = super::read(&text, variable);
            reading.references.extend(references);
            reading.left.extend(left);
        }
    }
    if files == 0 {
        return Err(wrong(&"nothing is in it"));
    }
    reading.left.insert("its templates: they are not rendered; helm template CHART | larder warm -".to_owned());
    Ok(reading)
}
