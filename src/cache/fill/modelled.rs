//! The watermark under a model checker: the very file that ships, compiled upon primitives whose every interleaving the checker
//! chooses. A reader that is never woken is a deadlock, which the checker reports with the schedule that led to it.

mod sync {
    pub(in crate::cache) use shuttle::sync::{Arc, Mutex, MutexGuard};
}
#[allow(clippy::duplicate_mod, reason = "once to ship, once to be checked")]
#[path = "watermark.rs"]
mod watermark;

use shuttle::future::block_on;
use shuttle::sync::mpsc::{Sender, channel};
use shuttle::thread::{self, JoinHandle};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::Poll;

type Watermark = watermark::Watermark<&'static str, End>;
type Writer = watermark::Writer<&'static str, End>;
type Reader = watermark::Reader<&'static str, End>;

const FILE: &str = "the file";
const LENGTH: u64 = 6;
const LIMIT: u64 = 4;
/// Random schedules, and as many that change threads at a few chosen points only.
const SCHEDULES: usize = 1_500;

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Verified,
    Failed(u32),
    Broken,
}

/// What the writer is about to tell, noted before it does: nobody may see more. It is none of the checker's, which need not
/// choose where it is read.
#[derive(Default)]
struct Told {
    written: AtomicU64,
    verified: AtomicU64,
}

impl Told {
    fn advance(&self, writer: &Writer, written: u64) {
        self.written.store(written, SeqCst);
        writer.advance(written);
    }

    fn complete(&self, writer: &mut Writer) {
        self.written.store(LENGTH, SeqCst);
        self.verified.store(1, SeqCst);
        writer.complete(|| FILE, LENGTH, End::Verified);
    }
}

/// Follows to the end, saying each step to `heard`; gives the end and how far it may read.
fn follow(reader: &mut Reader, told: &Told, heard: Option<&Sender<u64>>) -> (End, u64) {
    let (mut written, mut released) = (0, 0);
    loop {
        let seen = reader
            .wait(|p| (p.written > written || p.end.is_some()).then(|| (p.opened, p.written, p.released(), p.end)));
        let (opened, now, may_read, end) = block_on(seen);
        assert!(now >= written && may_read >= released, "the mark went back");
        assert!(now <= told.written.load(SeqCst), "the mark is beyond what was told");
        assert!(opened == Some(FILE) || now == 0, "bytes without a file");
        if told.verified.load(SeqCst) == 0 || end != Some(End::Verified) {
            assert!(may_read <= LIMIT, "released before the digest held");
        }
        (written, released) = (now, may_read);
        if let Some(heard) = heard {
            heard.send(now).unwrap();
        }
        if let Some(end) = end {
            return (end, released);
        }
    }
}

/// Waits for the end, but no longer than for one look.
fn look_once(reader: &mut Reader) {
    block_on(async {
        let mut wait = pin!(reader.wait(|progress| progress.end));
        std::future::poll_fn(|context| {
            let _ = wait.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
    });
}

fn follower(mark: &Watermark, told: &Arc<Told>, first: impl FnOnce(&mut Reader) + Send + 'static) -> Outcome {
    let (mark, told) = (mark.clone(), Arc::clone(told));
    thread::spawn(move || {
        let mut reader = mark.subscribe();
        first(&mut reader);
        follow(&mut reader, &told, None)
    })
}

type Outcome = JoinHandle<(End, u64)>;

fn in_all_schedules(model: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(model.clone(), SCHEDULES);
    shuttle::check_pct(model, SCHEDULES, 3);
}

/// A writer beside readers that follow, that gave up waiting once and wait again, and that leave; then one that comes late.
fn everybody_sees(finish: fn(&Told, Writer), end: End, released: u64) {
    in_all_schedules(move || {
        let (writer, mark) = Watermark::new(End::Broken);
        let told = Arc::new(Told::default());
        let followers = [follower(&mark, &told, |_| {}), follower(&mark, &told, look_once)];
        let leaver = {
            let mark = mark.clone();
            thread::spawn(move || look_once(&mut mark.subscribe()))
        };
        let writing = {
            let told = Arc::clone(&told);
            thread::spawn(move || {
                writer.open(FILE, 0, LIMIT);
                told.advance(&writer, 2);
                told.advance(&writer, 5);
                finish(&told, writer);
            })
        };
        for follower in followers {
            assert_eq!(follower.join().unwrap(), (end, released));
        }
        leaver.join().unwrap();
        writing.join().unwrap();
        assert_eq!((mark.readers(), mark.now(|progress| progress.end)), (0, Some(end)));
        assert_eq!(follow(&mut mark.subscribe(), &told, None), (end, released), "for one that comes late");
    });
}

#[test]
fn everybody_sees_a_content_that_is_verified() {
    everybody_sees(|told, mut writer| told.complete(&mut writer), End::Verified, LENGTH);
}

#[test]
fn everybody_sees_a_failure_as_it_was_told_and_no_byte_more() {
    everybody_sees(|_, mut writer| writer.end(End::Failed(7)), End::Failed(7), LIMIT);
}

#[test]
fn everybody_hears_of_a_writer_that_is_gone() {
    everybody_sees(|_, writer| drop(writer), End::Broken, LIMIT);
}

/// The writer goes on only when every reader has said that it has the step before: one wake-up that is missed is the end of it.
#[test]
fn every_single_step_wakes_everybody() {
    in_all_schedules(|| {
        let (mut writer, mark) = Watermark::new(End::Broken);
        let told = Arc::new(Told::default());
        let (heard, steps) = channel();
        let followers = [(); 2].map(|()| {
            let (mark, told, heard) = (mark.clone(), Arc::clone(&told), heard.clone());
            thread::spawn(move || follow(&mut mark.subscribe(), &told, Some(&heard)))
        });
        writer.open(FILE, 0, LIMIT);
        for step in [1, 3, 5] {
            told.advance(&writer, step);
            for _ in &followers {
                assert_eq!(steps.recv().unwrap(), step);
            }
        }
        told.complete(&mut writer);
        for follower in followers {
            assert_eq!(follower.join().unwrap(), (End::Verified, LENGTH));
        }
    });
}

#[test]
fn readers_are_counted_while_they_are_there() {
    in_all_schedules(|| {
        let (writer, mark) = Watermark::new(End::Broken);
        let readers = [(); 2].map(|()| {
            let mark = mark.clone();
            thread::spawn(move || {
                let reader = mark.subscribe();
                assert!((1..=2).contains(&mark.readers()));
                drop(reader);
            })
        });
        writer.advance(1);
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(mark.readers(), 0);
    });
}
