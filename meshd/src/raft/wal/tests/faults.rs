//! The handle: order of answers, group commit, and the first error as the last.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::raft::wal::sim::{On, Sim};
use crate::raft::wal::{Mark, Options, Wal, WalError};

use super::{DEADLINE, answer, body, ignore, mark, small};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

fn open(sim: &Sim, options: Options) -> Result<Wal, WalError> {
    Wal::open_on(Arc::new(sim.mount()), Path::new("/w"), options)
}

fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}

#[test]
fn answers_come_in_the_order_of_the_calls() {
    let wal = open(&Sim::default(), small()).unwrap();
    let (tx, rx) = std::sync::mpsc::channel();
    for call in 1..=300_u64 {
        let tx = tx.clone();
        let done = Box::new(move |outcome: Result<(), WalError>| {
            outcome.unwrap();
            tx.send(call).unwrap();
        });
        match call % 3 {
            0 => wal.save_vote(body("v"), done).unwrap(),
            1 => wal.append(vec![(1 + call / 3, body("e"))], done).unwrap(),
            _ => wal.append(vec![], done).unwrap(),
        }
    }
    let order: Vec<u64> = (1..=300).map(|_| rx.recv_timeout(DEADLINE).unwrap()).collect();
    assert_eq!(order, (1..=300).collect::<Vec<_>>());
}

#[test]
fn one_sync_serves_all_that_wait() {
    let sim = Sim::default();
    let wal = open(&sim, Options::default()).unwrap();
    let before = sim.syncs();
    // The first answer holds the writer until all the others are queued.
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let hold = Box::new(move |_: Result<(), WalError>| wait.recv_timeout(DEADLINE).unwrap());
    wal.append(vec![(1, body("first"))], hold).unwrap();
    for index in 2..=500 {
        wal.append(vec![(index, body("more"))], ignore()).unwrap();
    }
    let (done, rx) = answer();
    wal.append(vec![(501, body("last"))], done).unwrap();
    release.send(()).unwrap();
    rx.recv_timeout(DEADLINE).unwrap().unwrap();
    assert!(sim.syncs() - before <= 3, "{} syncs", sim.syncs() - before);
}

#[test]
fn a_commit_index_alone_is_written_after_its_delay_and_on_close() {
    let sim = Sim::default();
    let slow = Options { commit_delay: Duration::from_secs(3_600), ..small() };
    let wal = open(&sim, slow.clone()).unwrap();
    let before = sim.syncs();
    wal.save_committed(Some(mark(3))).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(sim.syncs(), before, "it waits for company");
    wal.close().unwrap();
    let wal = open(&sim, slow).unwrap();
    assert_eq!(wal.state().unwrap().committed, Some(mark(3)), "close writes it");
    wal.close().unwrap();
    let wal = open(&sim, small()).unwrap();
    let before = sim.syncs();
    wal.save_committed(Some(mark(4))).unwrap();
    for _ in 0..1_000 {
        if sim.syncs() > before {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never written");
}

#[test]
fn the_first_error_ends_the_log_and_is_not_retried() {
    let cases: &[(&str, On, i32, &str)] = &[
        ("full disk", On::Write, ENOSPC, "cannot append to \"/w/0000000000000001.wal\": No space"),
        ("failed write", On::Write, EIO, "cannot append to \"/w/0000000000000001.wal\": Input"),
        ("failed sync", On::Sync, EIO, "cannot sync \"/w/0000000000000001.wal\": Input/output"),
    ];
    for (name, on, errno, want) in cases {
        let sim = Sim::default();
        let wal = open(&sim, small()).unwrap();
        let failed = wal.failed();
        wal.append_blocking(vec![(1, body("kept"))]).unwrap();
        sim.fail_next(*on, *errno);
        let error = wal.append_blocking(vec![(2, body("lost"))]).unwrap_err();
        assert!(chain(&error).starts_with(want), "{name}: {}", chain(&error));
        let told = failed.borrow().clone().map(|error| error.to_string());
        assert_eq!(told, Some(error.to_string()), "{name}: told before the answer");
        let syncs = sim.syncs();
        let again = wal.save_vote_blocking(body("v")).unwrap_err();
        assert_eq!(again.to_string(), error.to_string(), "{name}");
        assert!(wal.read(.., usize::MAX).is_err() && wal.state().is_err(), "{name}: no reads");
        assert_eq!(wal.close().unwrap_err().to_string(), error.to_string(), "{name}");
        assert_eq!(sim.syncs(), syncs, "{name}: nothing is tried again");
        drop(wal);
        sim.process_restart();
        let wal = open(&sim, small()).unwrap();
        let (index, _) = wal.read(.., usize::MAX).unwrap()[0].clone();
        assert_eq!(index, 1, "{name}: with space again it starts");
        wal.append_blocking(vec![(wal.state().unwrap().last.unwrap().index + 1, body("x"))])
            .unwrap();
    }
}

#[test]
fn an_error_answers_all_that_is_queued_in_order() {
    let sim = Sim::default();
    let wal = open(&sim, Options { batch_bytes: 1, ..small() }).unwrap();
    sim.fail_next(On::Sync, EIO);
    let waits: Vec<_> = (1..=20)
        .filter_map(|index| {
            let (done, rx) = answer();
            // Once the failure is known the call itself says so.
            wal.append(vec![(index, body("x"))], done).ok().map(|()| rx)
        })
        .collect();
    assert!(!waits.is_empty());
    for rx in waits {
        assert!(rx.recv_timeout(DEADLINE).unwrap().is_err());
    }
}

#[test]
fn a_panicking_answer_ends_the_log_rather_than_hanging_it() {
    let wal = open(&Sim::default(), small()).unwrap();
    let mut failed = wal.failed();
    wal.append(vec![(1, body("x"))], Box::new(|_| panic!("expected by the test"))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let wait = failed.wait_for(Option::is_some);
        tokio::time::timeout(DEADLINE, wait).await.unwrap().unwrap();
    });
    assert!(matches!(wal.append_blocking(vec![(2, body("y"))]), Err(WalError::Closed)));
}

#[test]
fn holes_overwrites_and_giants_are_refused_and_harm_nothing() {
    let wal = open(&Sim::default(), small()).unwrap();
    wal.append_blocking(vec![(5, body("a")), (6, body("b"))]).unwrap();
    let giant = Bytes::from(vec![0; 17 << 20]);
    let cases = [
        ("hole", vec![(8, body("x"))], "entry has index 8, expected 7"),
        ("overwrite", vec![(6, body("x"))], "entry has index 6, expected 7"),
        ("inner hole", vec![(7, body("x")), (9, body("x"))], "entry has index 9, expected 8"),
        ("giant", vec![(7, giant)], "record has 17825800 bytes, expected at most 16777215"),
    ];
    for (name, entries, want) in cases {
        let error = wal.append(entries, ignore()).unwrap_err();
        assert_eq!(error.to_string(), want, "{name}");
    }
    wal.purge(Mark { index: 9, body: body("id") }).unwrap();
    let error = wal.append(vec![(9, body("x"))], ignore()).unwrap_err();
    assert_eq!(error.to_string(), "entry has index 9, expected 10");
    wal.append_blocking(vec![(10, body("x"))]).unwrap();
    assert_eq!(wal.state().unwrap().first, Some(10));
}

#[test]
fn reads_stop_at_their_bound_but_give_one_entry_at_least() {
    let wal = open(&Sim::default(), small()).unwrap();
    wal.append_blocking((1..=9).map(|i| (i, Bytes::from(vec![0; 100]))).collect()).unwrap();
    let count = |range: std::ops::Range<u64>, max| wal.read(range, max).unwrap().len();
    let cases = [
        ("all", 1..10, usize::MAX, 9),
        ("bound", 1..10, 350, 3),
        ("exact bound", 1..10, 300, 3),
        ("tiny bound", 4..10, 1, 1),
        ("beyond the end", 8..99, usize::MAX, 2),
        ("outside", 20..30, usize::MAX, 0),
        ("empty", 3..3, usize::MAX, 0),
    ];
    for (name, range, max, want) in cases {
        assert_eq!(count(range, max), want, "{name}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "must not panic")]
    let none = wal.read(5..=2, usize::MAX).unwrap();
    assert!(none.is_empty());
}

#[tokio::test]
async fn room_waits_until_the_queue_has_drained_and_not_for_ever() {
    let options =
        Options { queue_bytes: 1_000, stall_max: Duration::from_millis(100), ..Options::default() };
    let wal = open(&Sim::default(), options).unwrap();
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let hold = Box::new(move |_: Result<(), WalError>| wait.recv_timeout(DEADLINE).unwrap());
    wal.append(vec![(1, body("x"))], hold).unwrap();
    wal.append(vec![(2, Bytes::from(vec![0; 2_000]))], ignore()).unwrap();
    assert!(matches!(wal.room().await, Err(WalError::Stalled(_))));
    release.send(()).unwrap();
    wal.room().await.unwrap();
}
