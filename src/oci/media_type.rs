use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A media type without parameters, `type/subtype`, as a registry names the type of a manifest.
///
/// Clients compare it byte for byte with a descriptor's, so it is kept as it came, but for parameters such as
/// `; charset=utf-8`, which oras-go takes for another type.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MediaType(Arc<str>);

/// A text that is no media type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a media type")]
pub struct InvalidMediaType(String);

impl MediaType {
    /// An OCI image index, the type that a list of referrers must have.
    pub const OCI_INDEX: &'static str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image manifest.
    pub const OCI_MANIFEST: &'static str = "application/vnd.oci.image.manifest.v1+json";

    /// Whether registries store manifests and other documents of their own under such a type, rather than label files with it.
    #[must_use]
    pub fn is_specific(&self) -> bool {
        self.0.get(..16).is_some_and(|start| start.eq_ignore_ascii_case("application/vnd."))
    }

    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MediaType {
    type Err = InvalidMediaType;

    fn from_str(text: &str) -> Result<Self, InvalidMediaType> {
        let bare = text.split(';').next().unwrap_or_default().trim();
        let token = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        };
        match bare.split_once('/') {
            Some((kind, subtype)) if bare.len() <= 255 && token(kind) && token(subtype) => Ok(Self(bare.into())),
            _ => Err(InvalidMediaType(text.chars().take(255).collect())),
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a client says that it can read: all of its `Accept` lines together.
///
/// Docker sends one line per type, in random order; everybody else one line. Order and weights mean nothing to a registry,
/// except that `q=0` excludes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept(Vec<String>);

impl Accept {
    /// Collects the values of all `Accept` lines.
    pub fn from_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let ranges = lines.into_iter().flat_map(|line| line.split(','));
        Self(
            ranges
                .filter(|range| !is_excluded(range))
                .map(|range| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
                .filter(|range| !range.is_empty())
                .collect(),
        )
    }

    /// Whether the client can read `media_type`. One that says nothing reads everything.
    #[must_use]
    pub fn allows(&self, media_type: &MediaType) -> bool {
        let wanted = media_type.as_str();
        self.0.is_empty()
            || self.0.iter().any(|range| {
                range == "*/*"
                    || range.eq_ignore_ascii_case(wanted)
                    || range.strip_suffix("/*").is_some_and(|kind| {
                        wanted.split('/').next().is_some_and(|have| have.eq_ignore_ascii_case(kind))
                    })
            })
    }

    /// The ranges in one line, as they go to a registry that is to answer this very client.
    #[must_use]
    pub fn to_line(&self) -> String {
        self.0.join(", ")
    }
}

fn is_excluded(range: &str) -> bool {
    range.split(';').skip(1).any(|parameter| {
        parameter.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse::<f32>().is_ok_and(|q| q <= 0.0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_go_and_nonsense_is_refused() {
        let kind: MediaType = "application/json; charset=utf-8".parse().unwrap();
        assert_eq!(kind.as_str(), "application/json");
        for bad in ["", "json", "a/", "/b", "a/b c", "a/b\r\nX: y", "a/b/c"] {
            assert!(bad.parse::<MediaType>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_accept_line_counts() {
        let manifest: MediaType = MediaType::OCI_MANIFEST.parse().unwrap();
        let docker = Accept::from_lines(["application/json", MediaType::OCI_MANIFEST]);
        assert!(docker.allows(&manifest));
        assert!(Accept::from_lines([]).allows(&manifest));
        assert!(Accept::from_lines(["text/html, */*;q=0.1"]).allows(&manifest));
        assert!(Accept::from_lines(["application/*"]).allows(&manifest));
        assert!(!Accept::from_lines(["application/vnd.docker.distribution.manifest.v2+json"]).allows(&manifest));
        assert!(!Accept::from_lines([&*format!("{};q=0", MediaType::OCI_MANIFEST), "text/plain"]).allows(&manifest));
    }
}
