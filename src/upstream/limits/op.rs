use std::fmt;

/// What a request upstream is for: a metric's label, and the words of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Op {
    ManifestHead,
    ManifestGet,
    BlobHead,
    BlobGet,
    BlobStorage,
    Tags,
    Catalogue,
    Referrers,
    ManifestPut,
    ManifestDelete,
    BlobDelete,
    UploadStart,
    UploadChunk,
    UploadEnd,
    UploadStatus,
    UploadCancel,
    AcrRead,
    AcrWrite,
    AcrDelete,
    Token,
    Exchange,
    Ping,
}

impl Op {
    pub(in crate::upstream) fn as_str(self) -> &'static str {
        match self {
            Self::ManifestHead => "manifest_head",
            Self::ManifestGet => "manifest_get",
            Self::BlobHead => "blob_head",
            Self::BlobGet => "blob_get",
            Self::BlobStorage => "blob_storage",
            Self::Tags => "tags",
            Self::Catalogue => "catalogue",
            Self::Referrers => "referrers",
            Self::ManifestPut => "manifest_put",
            Self::ManifestDelete => "manifest_delete",
            Self::BlobDelete => "blob_delete",
            Self::UploadStart => "upload_start",
            Self::UploadChunk => "upload_chunk",
            Self::UploadEnd => "upload_end",
            Self::UploadStatus => "upload_status",
            Self::UploadCancel => "upload_cancel",
            Self::AcrRead => "acr_read",
            Self::AcrWrite => "acr_write",
            Self::AcrDelete => "acr_delete",
            Self::Token => "token",
            Self::Exchange => "exchange",
            Self::Ping => "ping",
        }
    }

    /// The limits that it counts against; a refusal is about the first one.
    pub(in crate::upstream) fn quota_classes(self) -> &'static [QuotaClass] {
        match self {
            Self::Referrers => &[QuotaClass::Referrers, QuotaClass::Reads],
            Self::Token | Self::Exchange => &[QuotaClass::Tokens],
            Self::BlobStorage => &[QuotaClass::Storage],
            Self::ManifestPut | Self::UploadStart | Self::UploadChunk | Self::UploadEnd | Self::AcrWrite => {
                &[QuotaClass::Writes]
            }
            Self::ManifestDelete | Self::BlobDelete | Self::UploadCancel | Self::AcrDelete => &[QuotaClass::Deletes],
            _ => &[QuotaClass::Reads],
        }
    }

    /// What a login must have the right to do, for the sentence that advises it: "grant that login the right to …".
    pub(in crate::upstream) fn deed(self) -> &'static str {
        match self.quota_classes()[0] {
            QuotaClass::Writes => "push to it",
            QuotaClass::Deletes => "delete from it",
            _ => "pull from it",
        }
    }

    /// Whether it changes nothing at the registry: it can be asked twice at the same time.
    pub(in crate::upstream) fn is_question(self) -> bool {
        !matches!(self.quota_classes()[0], QuotaClass::Writes | QuotaClass::Deletes)
    }

    /// Whether the answer may hold its connection for minutes.
    pub(in crate::upstream) fn is_bulk(self) -> bool {
        self.connection_class() == ConnectionClass::Download
    }

    /// Whether it asks a token service.
    pub(in crate::upstream) fn is_for_token(self) -> bool {
        matches!(self, Self::Token | Self::Exchange)
    }

    /// Which connections it may use.
    pub(in crate::upstream) fn connection_class(self) -> ConnectionClass {
        match self {
            Self::BlobGet | Self::BlobStorage => ConnectionClass::Download,
            Self::UploadStart | Self::UploadChunk | Self::UploadEnd => ConnectionClass::Upload,
            _ => ConnectionClass::Small,
        }
    }
}

/// What a request may take of a host's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum ConnectionClass {
    /// It is over in a moment.
    Small,
    /// Its answer may take minutes.
    Download,
    /// Its body may take hours.
    Upload,
}

/// What a registry counts together when it limits the pace (ACR's categories), and what stands behind its redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::upstream) enum QuotaClass {
    Reads,
    Referrers,
    Writes,
    Deletes,
    Tokens,
    Storage,
}

impl fmt::Display for QuotaClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reads => "reads",
            Self::Referrers => "lists of referrers",
            Self::Writes => "writes",
            Self::Deletes => "deletes",
            Self::Tokens => "requests for tokens",
            Self::Storage => "downloads from storage",
        })
    }
}
