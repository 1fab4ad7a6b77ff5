//! How much an upstream is asked: breakers, budgets, hold-back after 429, rates.

pub(in crate::upstream) mod again;
pub(in crate::upstream) mod breaker;
pub(in crate::upstream) mod budget;
pub(in crate::upstream) mod documents;
pub(in crate::upstream) mod op;
pub(in crate::upstream) mod rate;
pub(in crate::upstream) mod shares;
pub(in crate::upstream) mod throttle;
