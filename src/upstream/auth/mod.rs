//! How larder logs in: challenges, credentials, tokens and who may be sent which secret.

pub(in crate::upstream) mod caller;
pub(in crate::upstream) mod challenge;
pub(in crate::upstream) mod credential;
pub(in crate::upstream) mod jwt;
pub(in crate::upstream) mod login;
pub(in crate::upstream) mod scope;
pub(in crate::upstream) mod secret;
pub(in crate::upstream) mod session;
pub(in crate::upstream) mod token_client;
pub(in crate::upstream) mod tokens;
