//! Answers to requests for manifests, lists and ACR metadata.

pub(super) mod lists;
pub(super) mod local_lists;
pub(super) mod manifests;
pub(super) mod memory;
pub(super) mod metadata;
pub(super) mod pages;
pub(super) mod presence;
