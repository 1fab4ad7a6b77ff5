use super::simulator::{Options, Simulator};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};

/// A simulated registry. Dropped, it fails the test if it was asked in a way that ACR refuses.
pub struct Acr {
    simulator: Simulator,
    forgiving: AtomicBool,
}

impl Acr {
    pub async fn start(options: Options) -> Self {
        Self { simulator: Simulator::start(options).await, forgiving: AtomicBool::new(false) }
    }

    /// The test provokes violations and looks at them itself.
    pub fn forgive(&self) {
        self.forgiving.store(true, Ordering::Relaxed);
    }

    /// GETs of blob bytes without `Range` that were answered.
    pub fn downloads(&self) -> usize {
        self.count(|seen| seen.is_blob_body() && seen.range.is_none())
    }

    /// Requests for manifests at the login server that got this far: past its challenge.
    pub fn manifest_requests(&self, method: &str) -> usize {
        self.count(|seen| seen.method == method && seen.path().contains("/manifests/") && seen.status != 401)
    }
}

impl Deref for Acr {
    type Target = Simulator;

    fn deref(&self) -> &Simulator {
        &self.simulator
    }
}

impl Drop for Acr {
    fn drop(&mut self) {
        if !std::thread::panicking() && !self.forgiving.load(Ordering::Relaxed) {
            assert_eq!(self.simulator.violations(), Vec::<String>::new(), "ACR would have refused this");
        }
    }
}
