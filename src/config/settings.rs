use super::access::AccessRule;
use super::access::AccessSettings;
use super::credential;
use super::declare::{Declared, TableDoc};
use super::freshness::{FreshnessRule, FreshnessSettings};
use super::server::{AdminSettings, Limits, NetworkSettings, ServerSettings, StoreSettings};
use super::tls::TlsTable;
use super::upstreams::UpstreamSettings;
use super::warming::WarmSettings;

/// Everything that can be set, validated: what the rooms are built from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The registry API's listeners.
    pub server: ServerSettings,
    /// The second listener, for health and metrics.
    pub admin: AdminSettings,
    /// The store on disk.
    pub store: StoreSettings,
    /// Who is let in.
    pub access: AccessSettings,
    /// What holds for all connections to upstreams.
    pub network: NetworkSettings,
    /// The upstreams, at least one; one of them may be the default.
    pub upstreams: Vec<UpstreamSettings>,
    /// What is fetched ahead, again and again.
    pub warm: Vec<WarmSettings>,
}

impl Settings {
    /// All tables of the file with their keys, in the order of `config/larder.toml`.
    #[must_use]
    pub fn catalogue() -> Vec<TableDoc> {
        let mut tables = vec![ServerSettings::doc(), TlsTable::doc(), Limits::doc(), AdminSettings::doc()];
        tables.extend([StoreSettings::doc(), AccessSettings::doc(), AccessRule::doc(), NetworkSettings::doc()]);
        tables.push(UpstreamSettings::doc());
        tables.extend(credential::docs());
        tables.extend([FreshnessSettings::doc(), FreshnessRule::doc(), WarmSettings::doc()]);
        tables
    }
}
