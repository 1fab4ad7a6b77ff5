use crate::oci::Repository;
use crate::upstream::BlockedReason;
use std::sync::Arc;

/// How an upstream does at the moment, for a person.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// It is never asked.
    pub sealed: bool,
    /// What it has given is held in the store now, since it cannot give it again.
    pub away: bool,
    /// Why the last request to it failed, if that said nothing about content.
    pub problem: Option<Arc<str>>,
    /// Why requests are not sent.
    pub blocked: Vec<BlockedReason>,
    /// Repositories that it has refused to the login, in order: what is stored of them is withheld.
    pub withheld: Vec<Repository>,
}
