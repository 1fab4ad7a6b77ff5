/// What a request upstream is for: a metric's label, and the words of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    ManifestHead,
    ManifestGet,
    BlobHead,
    BlobGet,
    BlobStorage,
    Tags,
    Catalogue,
    Referrers,
    Token,
    Exchange,
    Ping,
}

impl Op {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ManifestHead => "manifest_head",
            Self::ManifestGet => "manifest_get",
            Self::BlobHead => "blob_head",
            Self::BlobGet => "blob_get",
            Self::BlobStorage => "blob_storage",
            Self::Tags => "tags",
            Self::Catalogue => "catalogue",
            Self::Referrers => "referrers",
            Self::Token => "token",
            Self::Exchange => "exchange",
            Self::Ping => "ping",
        }
    }

    /// Whether the answer may hold its connection for minutes.
    pub(super) fn is_bulk(self) -> bool {
        matches!(self, Self::BlobGet | Self::BlobStorage)
    }
}
