//! Ending in two stages: first no new connection and no new request, then, at a deadline, nothing at all.
//!
//! The owner of the server holds the [`DrainTrigger`]; each connection holds a [`Drain`]. The deadline is absolute: it
//! does not move when it is asked for again, except to come earlier. A trigger that is dropped before it was used ends everything
//! at once, since nobody is left who could.

use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Begins the end.
#[derive(Debug)]
pub struct DrainTrigger {
    deadline: watch::Sender<Option<Instant>>,
}

/// Learns of the end.
#[derive(Clone, Debug)]
pub struct Drain {
    deadline: watch::Receiver<Option<Instant>>,
}

impl Drain {
    /// A trigger, and what it triggers.
    #[must_use]
    pub fn new() -> (DrainTrigger, Drain) {
        let (sender, receiver) = watch::channel(None);
        (DrainTrigger { deadline: sender }, Drain { deadline: receiver })
    }

    /// Waits until no new work is to be taken on.
    pub async fn begun(&mut self) {
        // An error means that the trigger is gone, which is the end as well.
        let _ = self.deadline.wait_for(Option::is_some).await;
    }

    /// Waits until what still runs is to be cut.
    pub async fn expired(&mut self) {
        loop {
            let deadline = *self.deadline.borrow_and_update();
            let gone = tokio::select! {
                () = at(deadline) => return,
                changed = self.deadline.changed() => changed.is_err(),
            };
            if gone {
                if let Some(deadline) = deadline {
                    sleep_until(deadline).await;
                }
                return;
            }
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl DrainTrigger {
    /// Takes on no new work, and cuts what still runs after `within`.
    pub fn begin(&self, within: Duration) {
        let deadline = Instant::now() + within;
        self.deadline.send_modify(|current| *current = Some(current.map_or(deadline, |earlier| earlier.min(deadline))));
    }

    /// Waits until everything that notices the end has ended.
    pub async fn finished(&self) {
        self.deadline.closed().await;
    }

    /// Cuts everything at once.
    pub fn cut(&self) {
        self.begin(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn expires_at_the_deadline_and_not_before() {
        let (trigger, mut drain) = Drain::new();
        assert!(timeout(Duration::from_secs(99), drain.begun()).await.is_err());
        trigger.begin(Duration::from_secs(30));
        drain.begun().await;
        let began = Instant::now();
        drain.expired().await;
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_cuts_at_once_and_a_later_deadline_changes_nothing() {
        let (trigger, mut drain) = Drain::new();
        trigger.begin(Duration::from_secs(30));
        trigger.begin(Duration::from_secs(300));
        let began = Instant::now();
        let ((), ()) = tokio::join!(
            async {
                tokio::time::sleep(Duration::from_secs(5)).await;
                trigger.cut();
            },
            drain.expired()
        );
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_trigger_is_the_end_and_keeps_a_deadline_that_was_given() {
        let (trigger, mut drain) = Drain::new();
        drop(trigger);
        drain.begun().await;
        drain.expired().await;

        let (trigger, mut drain) = Drain::new();
        trigger.begin(Duration::from_secs(7));
        drop(trigger);
        let began = Instant::now();
        drain.expired().await;
        assert_eq!(began.elapsed().as_secs(), 7);
    }
}
