//! One flipped bit anywhere in what the program keeps on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::push::{Pusher, RECEIVER, Seen, receiver};
use super::sink::{Mood, Sink, TIMEOUT};
use super::{Rng, expect_ready, lock, metric, rounds, shared, until};
use crate::support::{Corten, Folder};

fn config(sink: &Sink, shards: u64) -> String {
    format!(
        "{RECEIVER}
prometheus.remote_write \"out\" {{
	endpoint {{
		url            = \"http://{}/api/v1/write\"
		remote_timeout = \"{TIMEOUT}\"
		queue_config {{
			min_shards           = {shards}
			max_shards           = {shards}
			max_samples_per_send = 100
			batch_send_deadline  = \"50ms\"
			max_backoff          = \"100ms\"
		}}
	}}
}}
",
        sink.address
    )
}

/// How many series are in a push. With one push after the other, each is a record in each shard.
const SERIES: usize = 20;

/// Fills a folder with what a program leaves that was ended while its endpoint was gone. How many requests got through
/// before.
fn backlog(rng: &mut Rng, sink: &Sink, killed: bool, shards: u64) -> (Folder, Pusher, usize) {
    let to = shared(None);
    let mut pusher = Pusher::start(0, SERIES, Duration::ZERO, &to);
    let mut folder = Folder::new(&config(sink, shards));
    // Several lives, so that there are several segments.
    let lives = rng.between(1, 3);
    for life in 1..=lives {
        sink.set(if life == lives { Mood::Works } else { Mood::Gone });
        let before = pusher.accepted();
        let corten = Corten::start_in(folder, &[]);
        *lock(&to) = Some(receiver(&corten));
        if life == lives {
            // The cursor has moved when the backlog begins.
            until("some of it is sent", || if sink.len() > 3 { Ok(()) } else { Err(String::new()) });
            sink.set(Mood::Gone);
        }
        let more = before + rng.between(3, 6) as usize;
        until("there is a backlog", || match pusher.accepted() {
            accepted if accepted > more => Ok(()),
            accepted => Err(format!("{accepted} pushes")),
        });
        if life == lives {
            let ledger = pusher.stop();
            assert!(ledger.refused.is_empty() && ledger.unknown.len() < lives as usize, "{ledger:?}");
        }
        *lock(&to) = None;
        folder = if killed { corten.kill() } else { corten.end_keeping() };
    }
    (folder, pusher, sink.len())
}

/// All files below a folder that are not empty, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.metadata().expect("a file").len() > 0 {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a copy");
        }
    }
}

/// What a bit is in, for the choice of bits: everything is to be hit, the small things too.
fn flip(rng: &mut Rng, data: &Path) -> String {
    let files = files(data);
    let file = &files[rng.below(files.len() as u64) as usize];
    let mut bytes = fs::read(file).expect("a file");
    // Most of a cursor's file is empty: half of the flips go where something stands.
    let at = loop {
        let at = rng.below(bytes.len() as u64) as usize;
        if bytes[at] != 0 || rng.below(20) == 0 {
            break at;
        }
    };
    let bit = rng.below(8);
    bytes[at] ^= 1 << bit;
    fs::write(file, &bytes).expect("a file");
    let file = file.strip_prefix(data).expect("it is in there").display();
    format!("bit {bit} of byte {at} of {} of {file}", bytes.len())
}

fn a_flipped_bit_costs_one_record(test: &str, killed: bool) {
    let mut rng = Rng::new(test);
    for _ in 0..rounds(2) {
        let sink = Sink::start(Mood::Works, rng.next());
        let shards = rng.between(1, 3);
        let (folder, pusher, sent) = backlog(&mut rng, &sink, killed, shards);
        let before = {
            let mut seen = Seen::default();
            seen.read(&sink);
            seen
        };
        let backlog = pusher.missing(&sink, &before);
        assert!(!backlog.is_empty(), "nothing waits");
        let address = sink.address;
        drop(sink);
        for round in 0..8 {
            let damaged = Folder::new("");
            copy(&folder.path().join("data"), &damaged.path().join("data"));
            // Another endpoint, on the same port, that knows nothing of the rounds before.
            let sink = Sink::again(address, rng.next());
            damaged.write(&config(&sink, shards));
            let what = flip(&mut rng, &damaged.path().join("data"));
            one_round(&format!("round {round}: {what}"), damaged, &sink, &pusher, &backlog, (sent, killed));
        }
    }
}

#[expect(clippy::print_stdout, reason = "the test runner shows it when the test fails")]
fn one_round(
    what: &str,
    folder: Folder,
    sink: &Sink,
    pusher: &Pusher,
    backlog: &BTreeMap<u64, BTreeSet<usize>>,
    (sent, killed): (usize, bool),
) {
    // For whoever reads why a round failed.
    println!("{what}");
    let corten = Corten::start_in(folder, &[]);
    let pending = || metric(&corten, "prometheus_remote_storage_samples_pending", &[]);
    until("nothing waits any more", || match pending() {
        Some(0.0) => Ok(()),
        other => Err(format!("{what}: {other:?} pending")),
    });
    expect_ready(&corten);
    let mut seen = Seen::default();
    seen.read(sink);
    let missing = pusher.missing(sink, &seen);
    // What neither endpoint got.
    let lost =
        |push: &u64, series: &BTreeSet<usize>| backlog.get(push).map_or(0, |waits| waits.intersection(series).count());
    let lost = missing.iter().map(|(push, series)| (*push, lost(push, series)));
    let lost: Vec<(u64, usize)> = lost.filter(|(_, samples)| *samples > 0).collect();
    let damage = metric(&corten, "prometheus_remote_write_wal_corruptions_total", &[]);
    // Everything may come twice where the cursor was damaged, which is better than never. In order it is in any case.
    assert!(
        lost.len() <= 1,
        "{what}: more than one record is lost: {lost:?} of {backlog:?}, {sent} requests were sent"
    );
    assert!(lost.is_empty() || damage >= Some(1.0), "{what}: {lost:?} is lost and not counted: {damage:?}");
    let dropped = metric(&corten, "prometheus_remote_storage_samples_dropped_total", &["reason=\"damaged\""]);
    if let ([(push, samples)], false) = (&lost[..], killed) {
        assert_eq!(dropped, Some(*samples as f64), "{what}: push {push} lost {samples} samples");
    }
    if lost.is_empty() {
        assert!(matches!(dropped, None | Some(0.0)) || damage >= Some(1.0), "{what}: {dropped:?} dropped");
    }
    let lines = corten.end();
    assert!(lines.iter().all(|line| !line.contains("panicked")), "{what}: {lines:#?}");
}

#[test]
fn a_flipped_bit_costs_one_record_after_the_program_was_ended() {
    a_flipped_bit_costs_one_record("damage after an end", false);
}

#[test]
fn a_flipped_bit_costs_one_record_after_the_program_was_killed() {
    a_flipped_bit_costs_one_record("damage after a kill", true);
}
