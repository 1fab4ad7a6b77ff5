//! What became of each check.

use std::collections::BTreeMap;

/// Why a check does not hold.
pub type Outcome = Result<(), String>;

#[derive(Default)]
pub struct Report(Vec<(String, Outcome)>);

impl Report {
    pub fn check(&mut self, name: &str, outcome: Outcome) {
        self.0.push((name.to_owned(), outcome));
    }

    /// The names, with how often each was checked.
    pub fn names(&self) -> BTreeMap<String, usize> {
        self.0.iter().fold(BTreeMap::new(), |mut names, (name, _)| {
            *names.entry(name.clone()).or_default() += 1;
            names
        })
    }

    pub fn assert_all_hold(&self) {
        let failed = self.0.iter().filter_map(|(name, outcome)| Some(format!("{name}: {}", outcome.as_ref().err()?)));
        let failed: Vec<String> = failed.collect();
        assert!(failed.is_empty(), "{} of {} checks do not hold:\n{}", failed.len(), self.0.len(), failed.join("\n"));
    }
}

/// Fails a check with a reason.
pub fn ensure(holds: bool, why: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(why()) }
}
