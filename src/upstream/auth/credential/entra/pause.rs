use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The pauses between failures: 1, 2, 4 … 60 s, each up to a quarter longer or shorter, so that machines that failed together do
/// not ask together.
pub(super) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pauses {
    /// The next pause, no shorter than the service wants.
    pub(super) fn next(&mut self, wanted: Option<Duration>) -> Duration {
        let base = self.0;
        self.0 = (base * 2).min(LONGEST);
        let mut byte = [128];
        // Without a random number the pauses are merely regular.
        let _ = aws_lc_rs::rand::fill(&mut byte);
        let jittered = base * 3 / 4 + base * u32::from(byte[0]) / 510;
        jittered.max(wanted.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let mut pauses = Pauses::default();
        for base in [1, 2, 4, 8, 16, 32, 60, 60] {
            let (pause, base) = (pauses.next(None), Duration::from_secs(base));
            assert!(pause >= base * 3 / 4 && pause <= base * 5 / 4, "{pause:?} for {base:?}");
        }
        assert_eq!(Pauses::default().next(Some(Duration::from_secs(17))), Duration::from_secs(17));
    }
}
