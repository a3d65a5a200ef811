//! Writes to a log until it is killed, and says on standard output what the log acknowledged.
//!
//! `wal-writer DIR`. Lines, each flushed before the next call to the log:
//! - `entry INDEX TERM`: the entry is on disk, as are all before it.
//! - `vote TERM`: the vote is on disk.
//! - `truncate INDEX`: from now on entries above it may be gone.
//! - `purge INDEX`: from now on entries up to it may be gone.

#![expect(clippy::expect_used, reason = "a test's tool fails by panicking")]

use std::io::Write;
use std::path::Path;

use mesh_tests::wal::{body, options, term_of};
use meshd::raft::wal::{Mark, Wal};

fn main() {
    let dir = std::env::args().nth(1).expect("a directory");
    let wal = Wal::open(Path::new(&dir), options()).expect("open the log");
    let state = wal.state().expect("state");
    let mut term = state.vote.as_ref().map_or(0, |vote| term_of(vote));
    let purged = state.purged.map_or(0, |mark| mark.index);
    let mut next = state.last.map_or(purged, |mark| mark.index) + 1;
    for step in 1_u64.. {
        match step % 11 {
            3 => {
                term += 1;
                wal.save_vote_blocking(body(0, term, 0)).expect("vote");
                say(&format!("vote {term}"));
            }
            5 if step % 3 == 0 && next > 4 => {
                let keep = next - 3;
                say(&format!("truncate {keep}"));
                wal.truncate_after(Some(keep)).expect("truncate");
                next = keep + 1;
            }
            8 if step % 2 == 0 && next > 60 => {
                let index = next - 50;
                say(&format!("purge {index}"));
                wal.purge(Mark { index, body: body(index, term, 0) }).expect("purge");
            }
            _ => {
                let many = 1 + step % 5;
                let size = (step * 37 % 900) as usize;
                let entries = (next..next + many).map(|i| (i, body(i, term, size))).collect();
                wal.append_blocking(entries).expect("append");
                for index in next..next + many {
                    say(&format!("entry {index} {term}"));
                }
                next += many;
            }
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("standard output");
}
