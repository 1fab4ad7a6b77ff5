//! Asks a question again that has no answer yet: on a new connection, at growing intervals, while the first one still waits.
//!
//! A connection can die in silence: a firewall forgets it, a load balancer hands it to a process that hangs. Nothing tells the
//! sender, and its time limit is long, because a registry may really be slow. So the first request is not given up. What is asked
//! besides it is bounded: one more connection for each question, [`AT_ONCE`] for each host, and no more requests than the budget
//! leaves to background work. When a host that was silent answers anything at all, its waiting questions are asked again at once.

use parking_lot::Mutex;
use std::future::{Future, pending};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Nothing is asked again earlier than this, however short `revalidate_wait` is. A host that says nothing for so long is silent.
pub(in crate::upstream) const SOONEST: Duration = Duration::from_secs(1);
/// An attempt has this time in any case before news lead to the next one.
const STEADY: Duration = Duration::from_millis(250);
/// The time between two attempts doubles up to this.
pub(in crate::upstream) const LATEST: Duration = Duration::from_secs(10);
/// Questions of one host that may have a second connection at the same time.
pub(in crate::upstream) const AT_ONCE: usize = 8;

/// When a host answers after a silence.
pub(in crate::upstream) struct Answers {
    last: Mutex<Instant>,
    returns: watch::Sender<()>,
}

impl Default for Answers {
    fn default() -> Self {
        Self { last: Mutex::new(Instant::now()), returns: watch::Sender::new(()) }
    }
}

impl Answers {
    /// The host has answered something.
    pub(in crate::upstream) fn heard(&self) {
        let before = std::mem::replace(&mut *self.last.lock(), Instant::now());
        if before.elapsed() >= SOONEST {
            self.ask_again();
        }
    }

    /// There is a reason to ask again at once what waits.
    pub(in crate::upstream) fn ask_again(&self) {
        self.returns.send_replace(());
    }
}

/// Asks until there is an answer, for the first time after `first`. `permit` waits for a place and says whether the attempt may be
/// made; `ask` gets the place and the time that it has.
pub(in crate::upstream) async fn again<P, T, G, F>(
    answers: &Answers,
    first: Duration,
    permit: impl Fn() -> G,
    ask: impl Fn(P, Duration) -> F,
) -> T
where
    G: Future<Output = Option<P>>,
    F: Future<Output = Option<T>>,
{
    let mut returns = answers.returns.subscribe();
    let mut pause = first.clamp(SOONEST, LATEST);
    due(&mut returns, pause).await;
    loop {
        let permit = permit().await;
        pause = (pause * 2).min(LATEST);
        let answer = async {
            match permit {
                Some(permit) => ask(permit, pause).await,
                None => None,
            }
        };
        let answer = async {
            match answer.await {
                Some(answer) => answer,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = answer => return answer,
            () = due(&mut returns, pause) => {}
        }
    }
}

/// Ends after `pause`, or earlier if the host answers meanwhile.
async fn due(returns: &mut watch::Receiver<()>, pause: Duration) {
    let begun = Instant::now();
    tokio::select! {
        () = sleep_until(begun + pause) => {}
        // The sender is the host's own: it cannot be gone.
        _ = returns.changed() => sleep_until(begun + STEADY.min(pause)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// The seconds at which a question is asked again, of which the attempt at `good` is answered.
    async fn asked(answers: &Answers, first: Duration, good: u64) -> Vec<u64> {
        let (begun, asked) = (Instant::now(), Mutex::new(Vec::new()));
        let permit = || async { Some(()) };
        let ask = |(), _| {
            let second = begun.elapsed().as_secs();
            asked.lock().push(second);
            async move {
                if second < good {
                    pending::<()>().await;
                }
                Some(())
            }
        };
        again(answers, first, permit, ask).await;
        asked.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_is_asked_again_at_growing_intervals() {
        let answers = Answers::default();
        assert_eq!(asked(&answers, Duration::from_secs(1), 40).await, [1, 3, 7, 15, 25, 35, 45]);
        assert_eq!(asked(&answers, Duration::ZERO, 2).await, [1, 3], "never earlier than after a second");
        assert_eq!(asked(&answers, Duration::from_secs(60), 15).await, [10, 20], "and not much later");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_answers_again_is_asked_at_once_and_one_that_was_never_silent_is_not() {
        let answers = Arc::new(Answers::default());
        let other = Arc::clone(&answers);
        // At 16.5 s the host answers somebody else.
        let back = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(16_500)).await;
            other.heard();
            tokio::time::sleep(Duration::from_millis(500)).await;
            other.heard();
        });
        assert_eq!(asked(&answers, Duration::from_secs(1), 20).await, [1, 3, 7, 15, 16, 26]);
        back.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_fails_or_is_not_permitted_waits_for_the_next_time() {
        let answers = Answers::default();
        let (begun, tries) = (Instant::now(), Mutex::new(Vec::new()));
        let permit = || async { (begun.elapsed().as_secs() != 3).then_some(()) };
        let ask = |(), limit: Duration| {
            let second = begun.elapsed().as_secs();
            tries.lock().push((second, limit.as_secs()));
            async move { (second > 7).then_some(()) }
        };
        again(&answers, SOONEST, permit, ask).await;
        assert_eq!(tries.into_inner(), [(1, 2), (7, 8), (15, 10)]);
    }
}
