//! Puts every room together, in the order of a request's way. The daemon and the tests use the same function.

use super::asking::asking;
use crate::access::Access;
use crate::admin::Admin;
use crate::cache::Cache;
use crate::config::{Environment, Listen, Settings, UpstreamSettings};
use crate::server::{RegistryService, Routes, Server, Sockets, Tls};
use crate::store::{Disk, Store};
use crate::telemetry::{Log, Metrics};
use crate::upstream::{Documents, Network, Upstream};
use std::sync::Arc;

/// Why the daemon did not start or ended early: the text says what to do.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// All rooms with their listeners bound: nothing is served yet.
pub struct Rooms {
    /// The listeners of registry clients.
    pub server: Server,
    /// What answers them.
    pub registry: RegistryService,
    /// The listeners of health, metrics and commands.
    pub admin_server: Server,
    /// What answers those.
    pub admin: Admin,
    /// The certificate, which [`Tls::follow`] keeps up to date.
    pub tls: Option<Tls>,
    pub store: Store,
    pub cache: Cache,
    /// The upstreams with their settings.
    pub upstreams: Vec<(UpstreamSettings, Upstream)>,
}

impl Rooms {
    /// Binds the listeners, opens the store and connects the rooms.
    ///
    /// # Errors
    /// What stands in the way, and what to do about it.
    pub async fn assemble(
        settings: &Settings,
        environment: &Environment,
        mut sockets: Sockets,
        disk: Arc<dyn Disk>,
        metrics: &Arc<Metrics>,
        log: Log,
    ) -> Result<Self, Failure> {
        let limits = &settings.server.limits;
        // Sockets first: a port that is taken must not cost the opening of a store.
        let tls = settings.server.tls.as_ref().map(|tls| Tls::load(tls, Arc::clone(metrics))).transpose()?;
        let server = Server::bind_registry(&mut sockets, &settings.server.listen, limits, tls.clone()).await?;
        let server = server.counted_in(metrics.http_connections.with_label_values(&[] as &[&str]));
        let store = Store::open(&settings.store, disk, Arc::clone(metrics)).await?;
        let admin_server = bind_admin(settings, &mut sockets).await?;
        let (routes, upstreams) = connect(settings, environment, &server.addresses(), metrics).await?;
        let names = settings.server.names.iter().cloned();
        let names = names.chain(settings.upstreams.iter().map(|upstream| upstream.name.to_string()));
        let access = Access::new(&settings.access, names, asking(&upstreams), metrics);
        let rules = settings.access.restrictions();
        let cache = Cache::new(store.clone(), upstreams.clone(), &rules, limits, Arc::clone(metrics));
        store.set_away_registries(cache.away_registries());
        cache.recall_missing(&store).await;
        let registry = RegistryService::new(routes.clone(), access.clone(), cache.clone(), Arc::clone(metrics), log);
        let admin = Admin::new(Arc::clone(metrics), store.clone(), cache.clone(), routes, access).with_tls(tls.clone());
        Ok(Self { server, registry, admin_server, admin, tls, store, cache, upstreams })
    }
}

/// The admin socket is in the store's folder, if nothing else was said, and so it is bound after the store's lock is taken: a socket that
/// is there then is a dead one.
async fn bind_admin(settings: &Settings, sockets: &mut Sockets) -> Result<Server, Failure> {
    let socket = settings.admin.socket.clone().map(Listen::Unix);
    let listen: Vec<_> = std::iter::once(Listen::Tcp(settings.admin.listen)).chain(socket).collect();
    Ok(Server::bind_admin(sockets, &listen, &settings.server.limits).await?)
}

/// The upstreams, and the names that lead to them. `own` are larder's listeners, which no upstream may be.
async fn connect(
    settings: &Settings,
    environment: &Environment,
    own: &[Listen],
    metrics: &Arc<Metrics>,
) -> Result<(Routes, Vec<(UpstreamSettings, Upstream)>), Failure> {
    let limits = &settings.server.limits;
    let network = Network::new(&settings.network.dns, own.iter().filter_map(Listen::address));
    let network = network.with_documents(Documents::new(limits.document_memory));
    let (mut routes, mut upstreams) = (Routes::default(), Vec::new());
    for upstream in &settings.upstreams {
        routes.add(&upstream.name, upstream.aliases.iter().map(String::as_str), upstream.default);
        network.check(upstream).await?;
        let connection = Upstream::in_network(upstream, limits, Arc::clone(metrics), environment, &network)?;
        upstreams.push((upstream.clone(), connection));
    }
    Ok((routes, upstreams))
}
