//! `kill -9` at any moment, whatever the endpoint does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::net::Counting;
use super::push::{Pusher, RECEIVER, Seen, receiver};
use super::sink::{Mood, Sink, TIMEOUT};
use super::{Rng, expect_ready, lock, rounds, shared, until};
use crate::support::{Corten, Folder};

/// The most shards of a life of the program.
const SHARDS_MAX: u64 = 4;

fn config(sink: &Sink, target: &Counting, shards: u64) -> String {
    format!(
        "{RECEIVER}
prometheus.scrape \"pull\" {{
	targets         = [{{ __address__ = \"{}\", instance = \"i\" }}]
	forward_to      = [prometheus.remote_write.out.receiver]
	scrape_interval = \"50ms\"
	scrape_timeout  = \"50ms\"
}}
prometheus.remote_write \"out\" {{
	endpoint {{
		url            = \"http://{}/api/v1/write\"
		remote_timeout = \"{TIMEOUT}\"
		queue_config {{
			min_shards           = {shards}
			max_shards           = {shards}
			max_samples_per_send = 100
			batch_send_deadline  = \"50ms\"
			max_backoff          = \"200ms\"
		}}
	}}
}}
",
        target.address(),
        sink.address
    )
}

#[test]
fn what_was_accepted_arrives_in_order_however_often_the_program_is_killed() {
    let mut rng = Rng::new("kill");
    let rounds = rounds(20);
    let (sink, to) = (Sink::start(Mood::any(&mut rng), rng.next()), shared(None));
    let target = Counting::start(|scrape| format!("torture_scrape {scrape}\n"));
    let mut pushers: Vec<Pusher> =
        (0..8).map(|number| Pusher::start(number, 30, Duration::from_millis(5), &to)).collect();
    let mut folder = Folder::new("");
    // Where each life begins among what the endpoint took.
    let mut lives = Vec::new();
    let accepted = |pushers: &[Pusher]| pushers.iter().map(Pusher::accepted).sum::<usize>() as u64;
    // A slow machine needs more of them until enough was accepted.
    while (lives.len() as u64) < rounds || accepted(&pushers) <= rounds * 10 && (lives.len() as u64) < rounds * 10 {
        folder.write(&config(&sink, &target, rng.between(1, SHARDS_MAX)));
        lives.push(sink.len());
        let corten = Corten::start_in(folder, &[]);
        *lock(&to) = Some(receiver(&corten));
        for _ in 0..rng.between(1, 3) {
            std::thread::sleep(rng.millis(20, 500));
            sink.set(Mood::any(&mut rng));
        }
        std::thread::sleep(rng.millis(0, 200));
        folder = corten.kill();
        *lock(&to) = None;
    }
    for pusher in &mut pushers {
        pusher.stop();
    }
    let kills = lives.len() as u64;
    folder.write(&config(&sink, &target, rng.between(1, SHARDS_MAX)));
    sink.set(Mood::Works);
    lives.push(sink.len());
    let corten = Corten::start_in(folder, &[]);
    let mut seen = Seen::default();
    until("all that was accepted arrives", || {
        seen.read(&sink);
        let missing: Vec<_> = pushers.iter().map(|pusher| pusher.missing(&sink, &seen)).collect();
        if missing.iter().all(BTreeMap::is_empty) { Ok(()) } else { Err(format!("missing: {missing:?}")) }
    });
    let last = target.scraped_more(5) - 2;
    until("what was scraped last arrives", || {
        seen.read(&sink);
        let scrape = sink.number(SCRAPE).ok_or("nothing was scraped")?;
        if seen.has(scrape, last as f64) { Ok(()) } else { Err(format!("not {last}")) }
    });
    expect_ready(&corten);
    let refused: Vec<_> = pushers.iter().flat_map(|pusher| pusher.ledger().refused).collect();
    let accepted = accepted(&pushers);
    assert!(refused.is_empty(), "{refused:?}");
    assert!(accepted > rounds * 10, "only {accepted} pushes were accepted");
    // Of the scrapes only those may be missing during which the program was killed, and those that took too long on a busy
    // machine: the target counted them, and they failed.
    let failed = sink.of("__name__=\"up\",instance=\"i\"").into_iter().filter(|(value, _)| *value == 0.0);
    let failed = failed.map(|(_, time_ms)| time_ms).collect::<BTreeSet<i64>>().len() as u64;
    let scrape = sink.number(SCRAPE).expect("it was scraped");
    let lost: Vec<u64> = (1..=last).filter(|scrape_number| !seen.has(scrape, *scrape_number as f64)).collect();
    assert!(lost.len() as u64 <= kills + failed, "of {last} scrapes {lost:?} are missing, {failed} failed");
    for (life, first) in lives.iter().enumerate() {
        let end = lives.get(life + 1).copied().unwrap_or(usize::MAX);
        let repeats = seen.repeats.iter().filter(|place| (*first..end).contains(place)).count();
        // Each answer that was not heard in time is one more that is asked for again.
        assert!(
            repeats <= SHARDS_MAX as usize + seen.late,
            "{repeats} requests of life {life} were there before: {:?} of {lives:?}",
            seen.repeats
        );
        assert!(life > 0 || repeats <= seen.late, "nothing was killed yet");
    }
    corten.end();
}

/// The series of the target.
const SCRAPE: &str = "{__name__=\"torture_scrape\",instance=\"i\",job=\"prometheus.scrape.pull\"}";
