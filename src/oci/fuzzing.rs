//! Fuzzing targets of this room; see `crate::fuzzing`.

#![allow(clippy::missing_panics_doc, reason = "that is how a target says that a property does not hold")]

use super::{
    Accept, Digest, MAX_RANGES, Manifest, MediaType, Name, RangeRequest, Ranges, Reference, Tag, resolve_many,
};

/// `Range`, a line each, behind eight bytes of length.
pub fn range(input: &[u8]) {
    let Some((length, lines)) = input.split_first_chunk::<8>() else { return };
    let Ok(lines) = std::str::from_utf8(lines) else { return };
    let Ok(Some(asked)) = Ranges::parse(lines.split('\n')) else { return };
    let several = match &asked {
        Ranges::One(range) => std::slice::from_ref(range),
        Ranges::Many(several) => several,
    };
    assert!(!several.is_empty() && several.len() <= MAX_RANGES);
    let written: Vec<String> = several.iter().map(|range| written(*range)).collect();
    let again = format!("bytes={}", written.join(","));
    assert_eq!(Ranges::parse([again.as_str()]).as_ref(), Ok(&Some(asked.clone())), "{again}");
    let length = u64::from_le_bytes(*length);
    for request in several {
        // Any length, and one near the range's ends.
        let near = match *request {
            RangeRequest::From(first, _) => first.saturating_add(length % 3),
            RangeRequest::Suffix(count) => count.saturating_sub(length % 3),
        };
        check(*request, length);
        check(*request, near);
    }
    if let Some(parts) = resolve_many(several, length) {
        let total: u128 = parts.iter().map(|part| u128::from(part.len())).sum();
        assert!(!parts.is_empty() && total <= u128::from(length) && parts.iter().all(|part| part.end <= length));
    }
}

fn written(request: RangeRequest) -> String {
    match request {
        RangeRequest::From(first, u64::MAX) => format!("{first}-"),
        RangeRequest::From(first, last) => format!("{first}-{last}"),
        RangeRequest::Suffix(count) => format!("-{count}"),
    }
}

fn check(request: RangeRequest, length: u64) {
    let Ok(range) = request.resolve(length) else { return };
    assert!(range.start < range.end && range.end <= length, "{range:?} of {length}");
    assert_eq!(range.content_range(length), format!("bytes {}-{}/{length}", range.start, range.end - 1));
    match request {
        RangeRequest::From(first, last) => {
            assert!(range.start == first && (range.end == length || range.end - 1 == last));
        }
        RangeRequest::Suffix(count) => assert!(range.end == length && range.len() == count.min(length)),
    }
}

/// A manifest, an index, or neither.
pub fn manifest(input: &[u8]) {
    let Some(manifest) = Manifest::parse(input) else { return };
    let shortest = "sha256:".len() + 64;
    assert!(manifest.children().count() * shortest <= input.len(), "more children than the text has room for");
    for descriptor in manifest.children() {
        assert_eq!(descriptor.digest.to_string().parse(), Ok(descriptor.digest));
    }
    if let Some(media_type) = &manifest.media_type {
        assert_eq!(media_type.as_str().parse().as_ref(), Ok(media_type));
    }
}

/// A name, a tag, a digest, a reference, a media type, an `Accept`: whatever the text can be read as.
pub fn name(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(name) = text.parse::<Name>() {
        assert_eq!(name.as_str(), text);
        assert!(!text.starts_with('/') && !text.ends_with('/') && !text.contains("//") && !text.contains(".."));
        assert!(text.split('/').all(|part| !part.starts_with('_')), "a folder of the store's own");
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
        assert!(text.len() <= 128 && !text.contains(['/', ':']) && !text.starts_with(['.', '-']));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
    }
    if let Ok(media_type) = text.parse::<MediaType>() {
        assert_eq!(media_type.as_str().parse().as_ref(), Ok(&media_type));
    }
    let _ = Accept::from_lines(text.lines());
}
