use crate::upstream::auth::login::{Credential, Login};
use crate::upstream::error::Failure;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// A burst of requests for many repositories runs one program, not one each; a rotated secret is found soon after.
const KEPT: Duration = Duration::from_secs(10);
/// A login that could not be had is asked for again after this.
const FAILED: Duration = Duration::from_secs(1);

type LoginOnce = OnceCell<(Instant, Result<Login, Failure>)>;

/// A source of logins that is asked by one at a time, and not again within seconds.
pub(in crate::upstream) struct Memo {
    source: Box<dyn Credential>,
    kept: Mutex<Arc<LoginOnce>>,
}

impl Memo {
    pub(in crate::upstream) fn new(source: Box<dyn Credential>) -> Self {
        Self { source, kept: Mutex::default() }
    }

    /// The login as it is now, or was moments ago.
    pub(in crate::upstream) async fn material(&self) -> Result<Login, Failure> {
        if self.source.keeps() {
            return self.source.material().await;
        }
        let asked = {
            let mut kept = self.kept.lock();
            let is_old =
                kept.get().is_some_and(|(at, outcome)| at.elapsed() >= if outcome.is_ok() { KEPT } else { FAILED });
            if is_old {
                *kept = Arc::default();
            }
            Arc::clone(&kept)
        };
        let (_, outcome) = asked
            .get_or_init(|| async {
                let outcome = self.source.material().await;
                (Instant::now(), outcome)
            })
            .await;
        outcome.clone()
    }

    /// Which logins were thought of before the one that holds, each with why it was not that.
    pub(in crate::upstream) fn passed_over(&self) -> Vec<String> {
        self.source.passed_over()
    }

    /// The login last given out was refused: the source is asked anew.
    pub(in crate::upstream) fn refused(&self) {
        self.source.refused();
        *self.kept.lock() = Arc::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::auth::login::Pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counting(Arc<AtomicUsize>);

    impl Credential for Counting {
        fn material(&self) -> Pending<'_> {
            Box::pin(async {
                let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(Login::anonymous(&number.to_string(), ""))
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn asked_once_for_all_and_again_after_seconds_or_a_refusal() {
        let count = Arc::new(AtomicUsize::new(0));
        let memo = Arc::new(Memo::new(Box::new(Counting(Arc::clone(&count)))));
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let memo = Arc::clone(&memo);
                tokio::spawn(async move { memo.material().await.unwrap().source })
            })
            .collect();
        for waiter in waiting {
            assert_eq!(waiter.await.unwrap(), "1");
        }
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(memo.material().await.unwrap().source, "1");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(memo.material().await.unwrap().source, "2");
        memo.refused();
        assert_eq!(memo.material().await.unwrap().source, "3");
    }
}
