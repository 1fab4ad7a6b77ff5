use crate::store::StoreError;
use std::fmt::Display;

/// Logs a failure of the store. It never fails a pull: what cannot be read is absent, what cannot be stored is not stored.
pub(super) fn log_and_ignore<T>(attempt: &str, what: impl Display, result: Result<T, StoreError>) -> Option<T> {
    result.inspect_err(|error| tracing::error!(%error, "could not {attempt} {what}")).ok()
}
