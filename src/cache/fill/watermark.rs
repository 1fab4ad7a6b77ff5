//! How far a fill is: told by its one writer, seen by any number of readers, each of which sleeps until what it waits for holds.
//!
//! It knows neither files nor errors, and takes its lock from `super::sync`: `modelled.rs` compiles this very file a second time,
//! upon the primitives of a model checker.

use super::sync::{Arc, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::mem::take;
use std::sync::PoisonError;
use std::task::{Poll, Waker};

/// What a reader can see. `O`: what readers need to read; `E`: how it ended.
#[derive(Debug)]
pub(in crate::cache) struct Progress<O, E> {
    /// Set once there is something to read.
    pub(in crate::cache) opened: Option<O>,
    /// Bytes that are written and never change any more.
    pub(in crate::cache) written: u64,
    /// Bytes that may be read at most, however many are written; lifted when the whole is found to be right.
    pub(in crate::cache) limit: u64,
    /// Set once, at the end.
    pub(in crate::cache) end: Option<E>,
}

impl<O, E> Progress<O, E> {
    /// Bytes that may be read.
    pub(in crate::cache) fn released(&self) -> u64 {
        self.written.min(self.limit)
    }
}

#[derive(Debug)]
struct State<O, E> {
    progress: Progress<O, E>,
    /// Whoever sleeps, by the number of its reader. In order, so that a model's run can be repeated.
    asleep: BTreeMap<u64, Waker>,
    readers: usize,
    next_reader: u64,
}

/// The progress, to look at and to subscribe to.
#[derive(Debug)]
pub(in crate::cache) struct Watermark<O, E>(Arc<Mutex<State<O, E>>>);

impl<O, E> Clone for Watermark<O, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<O, E> Watermark<O, E> {
    /// A beginning and the one who may tell how it goes on. `broken` is the end if that one is dropped without having told any.
    pub(in crate::cache) fn new(broken: E) -> (Writer<O, E>, Self) {
        let progress = Progress { opened: None, written: 0, limit: 0, end: None };
        let state = State { progress, asleep: BTreeMap::new(), readers: 0, next_reader: 0 };
        let mark = Self(Arc::new(Mutex::new(state)));
        (Writer { mark: mark.clone(), broken: Some(broken) }, mark)
    }

    /// What `look` sees in the progress of now.
    pub(in crate::cache) fn now<T>(&self, look: impl FnOnce(&Progress<O, E>) -> T) -> T {
        look(&self.state().progress)
    }

    /// A reader, who counts as one until it is dropped.
    pub(in crate::cache) fn subscribe(&self) -> Reader<O, E> {
        let mut state = self.state();
        let number = state.next_reader;
        state.next_reader += 1;
        state.readers += 1;
        Reader { mark: self.clone(), number }
    }

    /// Readers that there are.
    pub(in crate::cache) fn readers(&self) -> usize {
        self.state().readers
    }

    /// Changes the progress, then wakes everybody who sleeps. They are woken outside the lock, which is the first thing that they
    /// want.
    fn publish(&self, change: impl FnOnce(&mut Progress<O, E>)) {
        let mut state = self.state();
        change(&mut state.progress);
        let asleep = take(&mut state.asleep);
        drop(state);
        asleep.into_values().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State<O, E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the progress.
#[derive(Debug)]
pub(in crate::cache) struct Writer<O, E> {
    mark: Watermark<O, E>,
    /// Taken when an end is told.
    broken: Option<E>,
}

impl<O, E> Writer<O, E> {
    /// There is something to read: `written` bytes are there already, and no more than `limit` may be read before the end.
    pub(in crate::cache) fn open(&self, opened: O, written: u64, limit: u64) {
        self.mark.publish(|progress| {
            progress.opened = Some(opened);
            progress.written = written;
            progress.limit = limit;
        });
    }

    /// `written` bytes are there. The mark never goes back.
    pub(in crate::cache) fn advance(&self, written: u64) {
        self.mark.publish(|progress| progress.written = progress.written.max(written));
    }

    /// It ends well: all of `length` bytes may be read. `opened` says where, if it was not said before.
    pub(in crate::cache) fn complete(&mut self, opened: impl FnOnce() -> O, length: u64, end: E) {
        self.broken = None;
        self.mark.publish(|progress| {
            progress.opened.get_or_insert_with(opened);
            progress.written = length;
            progress.limit = length;
            progress.end = Some(end);
        });
    }

    /// It ends, and nothing more is released.
    pub(in crate::cache) fn end(&mut self, end: E) {
        self.broken = None;
        self.mark.publish(|progress| progress.end = Some(end));
    }
}

impl<O, E> Drop for Writer<O, E> {
    fn drop(&mut self) {
        if let Some(broken) = self.broken.take() {
            self.end(broken);
        }
    }
}

/// Waits for progress.
#[derive(Debug)]
pub(in crate::cache) struct Reader<O, E> {
    mark: Watermark<O, E>,
    number: u64,
}

impl<O, E> Reader<O, E> {
    /// What `ready` finds in the progress, as soon as it finds anything. It must find something once there is an end.
    pub(in crate::cache) async fn wait<T>(&mut self, mut ready: impl FnMut(&Progress<O, E>) -> Option<T>) -> T {
        poll_fn(|context| {
            let mut state = self.mark.state();
            let found = ready(&state.progress);
            let before = match found {
                Some(_) => state.asleep.remove(&self.number),
                None => state.asleep.insert(self.number, context.waker().clone()),
            };
            // A waker that is dropped may end a task, whose reader then wants the lock.
            drop(state);
            drop(before);
            found.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl<O, E> Drop for Reader<O, E> {
    fn drop(&mut self) {
        let mut state = self.mark.state();
        state.readers -= 1;
        let waker = state.asleep.remove(&self.number);
        drop(state);
        drop(waker);
    }
}
