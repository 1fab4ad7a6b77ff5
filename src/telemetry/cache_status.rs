use std::fmt;

/// Why an answer came from where it came: the same word in the log line, the metric label and the `Cache-Status` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheStatus {
    /// Stored, and good without asking anybody.
    Hit,
    /// Not stored: fetched for this request, or sought in vain.
    Miss,
    /// Not stored: another request's fetch under way answers this one too.
    Coalesced,
    /// Stored and out of date, given out because upstream could not say better in time.
    Stale,
    /// Stored, and upstream has just said that it still holds.
    Revalidated,
    /// Known to be absent: upstream said so moments ago.
    Negative,
    /// Passed through and not kept.
    Bypass,
}

impl CacheStatus {
    /// Every word, for metrics that are to exist from the start.
    pub const ALL: [Self; 7] =
        [Self::Hit, Self::Miss, Self::Coalesced, Self::Stale, Self::Revalidated, Self::Negative, Self::Bypass];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Negative => "negative",
            Self::Bypass => "bypass",
        }
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
