//! The file that the operator writes, its overrides, and the validated settings that the other rooms are given.

mod settings;

pub use settings::{
    AccessSettings, AdminSettings, CredentialSettings, FreshnessSettings, Limits, Listen, ServerSettings, Settings,
    StoreSettings, Sync, UpstreamSettings,
};
