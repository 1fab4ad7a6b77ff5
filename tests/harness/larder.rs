use super::{Answer, Call, Client, Logs, Setup};
use larder::cache::Cache;
use larder::daemon::Rooms;
use larder::server::{Drain, DrainTrigger, Server, Sockets};
use larder::store::{Disk, RealDisk, Store};
use larder::telemetry::{Log, LogGuard, Metrics};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// A running larder, joined as the daemon joins it. Dropped, it is cut off; [`Larder::stop`] also gives the store free.
pub struct Larder {
    pub setup: Setup,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub metrics: Arc<Metrics>,
    pub store: Store,
    pub cache: Cache,
    logs: Logs,
    log: Log,
    _guard: LogGuard,
    triggers: [DrainTrigger; 2],
    tasks: Vec<JoinHandle<()>>,
}

impl Larder {
    pub async fn start(setup: Setup) -> Self {
        let disk = Arc::new(RealDisk::new(setup.store()));
        Self::start_on(setup, disk).await
    }

    /// The same, over another disk.
    pub async fn start_on(setup: Setup, disk: Arc<dyn Disk>) -> Self {
        let settings = &setup.settings;
        let (logs, log, guard) = Logs::begin();
        let metrics = Arc::new(Metrics::new());
        let rooms = Rooms::assemble(settings, &setup.environment, Sockets::default(), disk, &metrics, log.clone())
            .await
            .unwrap();
        let Rooms { server, registry, admin_server, admin: admin_handler, store, cache, .. } = rooms;
        admin_handler.set_ready(true);

        let (address, admin) = (tcp(&server), tcp(&admin_server));
        let (trigger, drain) = Drain::new();
        let (admin_trigger, admin_drain) = Drain::new();
        let tasks = vec![
            tokio::spawn(server.serve(registry, drain)),
            tokio::spawn(admin_server.serve(admin_handler, admin_drain)),
        ];
        let triggers = [trigger, admin_trigger];
        Self { address, admin, metrics, store, cache, logs, log, _guard: guard, triggers, tasks, setup }
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub fn call(&self, method: &str, target: &str) -> Call {
        self.client().call(method, target)
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.call("GET", target).send().await
    }

    pub async fn head(&self, target: &str) -> Answer {
        self.call("HEAD", target).send().await
    }

    pub async fn admin_get(&self, target: &str) -> Answer {
        Client::new(self.admin).call("GET", target).send().await
    }

    /// The lines of `/metrics` that begin with `prefix`.
    pub async fn metric_lines(&self, prefix: &str) -> Vec<String> {
        let answer = self.admin_get("/metrics").await;
        answer.text().lines().filter(|line| line.starts_with(prefix)).map(str::to_owned).collect()
    }

    /// The value of one metric, its labels written as in `/metrics`; 0 if it is not there.
    pub async fn metric(&self, series: &str) -> u64 {
        super::metric_in(self.admin_get("/metrics").await.text(), series)
    }

    /// The request lines so far, of requests whose answers have ended.
    pub fn requests(&self) -> Vec<serde_json::Value> {
        self.log.flush();
        self.logs.lines()
    }

    /// Waits for the request lines to be `count`, and gives them: a line is written when the last byte has gone, which a client
    /// may see first.
    pub async fn requests_when(&self, count: usize) -> Vec<serde_json::Value> {
        super::until(&format!("{count} request lines"), || self.requests().len() >= count).await;
        self.requests()
    }

    /// The file of a blob in the store.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').unwrap();
        self.setup.store().join("blobs").join(algorithm).join(hex)
    }

    pub fn stores(&self, digest: &str) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Drains, and returns when the registry's listeners have ended.
    pub async fn drain(mut self, within: std::time::Duration) {
        self.triggers[0].begin(within);
        self.tasks.remove(0).await.unwrap();
    }

    /// Ends at once, writes what is held in memory, and gives back what it can be started with again.
    pub async fn stop(mut self) -> Setup {
        self.triggers.iter().for_each(DrainTrigger::cut);
        for task in std::mem::take(&mut self.tasks) {
            task.await.unwrap();
        }
        self.store.close().await;
        self.setup.clone()
    }
}

impl Drop for Larder {
    fn drop(&mut self) {
        self.triggers.iter().for_each(DrainTrigger::cut);
    }
}

fn tcp(server: &Server) -> SocketAddr {
    let tcp = server.addresses().into_iter().find_map(|listen| listen.address());
    tcp.unwrap()
}
