//! State that one job at a time works on.
//!
//! The state travels to the store's threads with the job and comes back with its result. A caller that leaves in the middle
//! breaks nothing: the next call waits for that job first. If the `SerialJob` itself is dropped, the running job drops the state.

use super::workers::Workers;
use crate::store::error::StoreError;
use tokio::sync::oneshot;

pub(crate) struct SerialJob<S> {
    state: Option<Box<S>>,
    running: Option<oneshot::Receiver<Done<S>>>,
    workers: Workers,
}

type Done<S> = (Box<S>, Result<(), StoreError>);

impl<S: Send + 'static> SerialJob<S> {
    pub(crate) fn new(state: S, workers: Workers) -> Self {
        Self { state: Some(Box::new(state)), running: None, workers }
    }

    /// The state, unless a job has it.
    pub(crate) fn idle(&self) -> Option<&S> {
        self.state.as_deref()
    }

    /// Runs a job on the state, once the last one is done, whose error counts.
    pub(crate) async fn run(
        &mut self,
        work: impl FnOnce(&mut S) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        self.finish_running().await?;
        let place = self.workers.within(self.workers.place()).await?;
        let mut state = self.state.take().ok_or(StoreError::Closed)?;
        self.running = Some(place.start(move || {
            let result = work(&mut state);
            (state, result)
        }));
        self.finish_running().await
    }

    /// Waits for the job in flight, which may be that of a caller who went away.
    pub(crate) async fn finish_running(&mut self) -> Result<(), StoreError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        // Too long: the state is still the job's, and comes back if this is called again.
        let done = self.workers.within(async { Ok(running.await) }).await?;
        self.running = None;
        let (state, result) = done.map_err(|_| StoreError::Closed)?;
        self.state = Some(state);
        result
    }

    /// The state itself, once the last job is done.
    pub(crate) async fn take(mut self) -> Result<Box<S>, StoreError> {
        let finished = self.finish_running().await;
        let state = self.state.take().ok_or(StoreError::Closed)?;
        finished.map(|()| state)
    }
}
