//! What imports wait for (`imports`): names whose contents are still on their way by disk. Its content means nothing to the store.

use crate::store::api::Store;
use crate::store::error::StoreError;
use crate::store::files::record::Record;
use crate::store::parts::Inner;
use bytes::Bytes;
use std::path::Path;

const KIND: &str = "imports";
const FILE: &str = "imports";

impl Store {
    /// What imports wait for, as it was kept.
    pub async fn pending_imports(&self) -> Result<Option<Bytes>, StoreError> {
        self.run(Inner::pending_imports).await
    }

    /// Keeps what imports wait for, over restarts too.
    pub async fn set_pending_imports(&self, content: Bytes) -> Result<(), StoreError> {
        self.write(move |inner| {
            let record = Record::new().with_body(&content);
            inner.replace(Path::new(FILE), &record.to_bytes(KIND)).map(drop)
        })
        .await
    }
}

impl Inner {
    fn pending_imports(&self) -> Result<Option<Bytes>, StoreError> {
        let record = self.files.read(Path::new(FILE))?.and_then(|bytes| Record::parse(KIND, &bytes));
        Ok(record.map(|record| record.into_body().into()))
    }
}
