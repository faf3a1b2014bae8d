//! Reloads, a thousand of them, while samples flow.

use std::collections::BTreeMap;
use std::time::Duration;

use super::net::Counting;
use super::push::{Pusher, RECEIVER, Seen, receiver};
use super::sink::{Mood, Sink};
use super::{Rng, expect_ready, handles, metric, resident, rounds, shared, until, wire};
use crate::support::{Corten, Folder};

/// What stays the same over all reloads.
fn steady(sink: &Sink) -> String {
    format!(
        "{RECEIVER}
prometheus.remote_write \"out\" {{
	endpoint {{
		url = \"http://{}/api/v1/write\"
		queue_config {{
			batch_send_deadline = \"50ms\"
			max_shards          = 1
		}}
	}}
}}
",
        sink.address
    )
}

fn scrape(target: &Counting, instance: &str, more: &str) -> String {
    format!(
        "prometheus.scrape \"pull\" {{
	targets         = [{{ __address__ = \"{}\", instance = \"{instance}\" }}]
	forward_to      = [prometheus.remote_write.out.receiver]
	scrape_interval = \"100ms\"
	scrape_timeout  = \"100ms\"
	{more}
}}
",
        target.address()
    )
}

/// Components that have nothing to do with the rest, different in each round.
fn others(round: u64) -> String {
    format!(
        "prometheus.echo \"e{}\" {{ }}
prometheus.relabel \"r\" {{
	forward_to = [prometheus.echo.e{}.receiver]
	rule {{
		target_label = \"round\"
		replacement  = \"{round}\"
	}}
}}
discovery.relabel \"d{}\" {{
	targets = [{{ __address__ = \"{round}\" }}]
}}
",
        round % 3,
        round % 3,
        round % 2
    )
}

fn page(scrape: u64) -> String {
    (0..50).map(|at| format!("torture_scrape{{at=\"{at}\"}} {scrape}\n")).collect()
}

/// Asserts that of so many scrapes each arrived once, but for those that took too long on a busy machine: the target
/// counted them, and they failed. What follows the name of a series of the target is given.
fn expect_each_once(sink: &Sink, labels: &str, scrapes: u64) {
    let failed = sink.of(&format!("__name__=\"up\",{labels}")).into_iter().filter(|(value, _)| *value == 0.0).count();
    let mut found: BTreeMap<u64, usize> = BTreeMap::new();
    for (value, _) in sink.of(&format!("__name__=\"torture_scrape\",at=\"7\",{labels}")) {
        if value.to_bits() != wire::STALE {
            *found.entry(value as u64).or_default() += 1;
        }
    }
    assert!(found.values().all(|times| *times == 1), "something comes twice: {found:?}");
    let missing: Vec<u64> = (1..=scrapes).filter(|scrape| !found.contains_key(scrape)).collect();
    assert!(missing.len() <= failed, "{missing:?} of {scrapes} are missing, {failed} failed");
}

/// What is wrong with a configuration, in one of some ways.
fn broken(round: u64, good: &str) -> String {
    match round % 4 {
        0 => format!("{good}\nprometheus.echo \"x\" {{\n"),
        1 => format!("{good}\nprometheus.echo \"x\" {{ nonsense = 1 }}\n"),
        2 => format!("{good}\nprometheus.relabel \"x\" {{ forward_to = [prometheus.echo.nowhere.receiver] }}\n"),
        _ => good.replace("max_shards          = 1", "max_shards          = 0"),
    }
}

#[test]
fn a_thousand_reloads_lose_and_repeat_nothing_and_the_program_does_not_grow() {
    let reloads = rounds(1000);
    let mut rng = Rng::new("reloads");
    let (sink, target) = (Sink::start(Mood::Works, rng.next()), Counting::start(page));
    let always = format!("{}{}", steady(&sink), scrape(&target, "i", ""));
    let corten = Corten::start_in(Folder::new(&always), &[]);
    let to = shared(Some(receiver(&corten)));
    let mut pushers: Vec<Pusher> =
        (0..2).map(|number| Pusher::start(number, 20, Duration::from_millis(5), &to)).collect();
    let mut early = None;
    for round in 1..=reloads {
        let good = format!("{always}{}", others(round));
        if round % 10 == 0 {
            let refused = corten.reload(&broken(round / 10, &good));
            assert_eq!(refused.status, 400, "{refused:?}");
        }
        let reloaded = corten.reload(&good);
        assert_eq!(reloaded.status, 200, "{reloaded:?}");
        if round == 200 {
            early = resident(&corten).zip(handles(&corten));
        }
    }
    assert_eq!(metric(&corten, "alloy_config_last_load_successful", &[]), Some(1.0));
    if let Some((memory_early, handles_early)) = early {
        // Some connections of the tests may still be open.
        until("the handles are those of before", || match handles(&corten) {
            Some(now) if now <= handles_early + 4 => Ok(()),
            now => Err(format!("{now:?}, {handles_early} before")),
        });
        let now = resident(&corten).expect("it told before");
        assert!(now < memory_early + (8 << 20), "{memory_early} bytes after 200 reloads, {now} after {reloads}");
    }
    expect_ready(&corten);
    for pusher in &mut pushers {
        let ledger = pusher.stop();
        assert!(ledger.refused.is_empty() && ledger.unknown.is_empty(), "{ledger:?}");
        assert!(ledger.accepted.len() > 5, "{ledger:?}");
    }
    target.scraped_more(2);
    corten.end();
    let mut seen = Seen::default();
    seen.read(&sink);
    assert!(seen.repeats.len() <= seen.late, "nothing comes twice: {:?}", seen.repeats);
    for pusher in &pushers {
        assert!(pusher.missing(&sink, &seen).is_empty(), "{:?}", pusher.missing(&sink, &seen));
    }
    expect_each_once(&sink, "instance=\"i\"", target.scrapes());
}

#[test]
fn reloads_that_keep_the_series_of_a_scrape_write_no_markers() {
    let mut rng = Rng::new("reloads that keep series");
    let (sink, target) = (Sink::start(Mood::Works, rng.next()), Counting::start(page));
    let config = |more: &str| format!("{}{}", steady(&sink), scrape(&target, "i", more));
    let corten = Corten::start_in(Folder::new(&config("")), &[]);
    for round in 0..rounds(40) {
        target.scraped_more(rng.between(1, 3));
        let (limit, compression) = (1000 + round, round % 2 == 0);
        let more =
            format!("sample_limit = {limit}\n\tenable_compression = {compression}\n\tfollow_redirects = {compression}");
        let text = config(&more).replace(
            "scrape_timeout  = \"100ms\"",
            ["scrape_timeout = \"100ms\"", "scrape_timeout = \"90ms\""][round as usize % 2],
        );
        let reloaded = corten.reload(&text);
        assert_eq!(reloaded.status, 200, "{reloaded:?}");
    }
    target.scraped_more(2);
    corten.end();
    expect_each_once(&sink, "instance=\"i\"", target.scrapes());
    // Only a scrape that failed writes them.
    let failed: Vec<i64> = times(&sink, "__name__=\"up\"", |value| value == 0.0);
    let stale = times(&sink, "__name__=\"torture_scrape\"", |value| value.to_bits() == wire::STALE);
    assert!(stale.iter().all(|time_ms| failed.contains(time_ms)), "{stale:?} {failed:?}");
}

/// The times of the samples whose values are so.
fn times(sink: &Sink, series: &str, is_meant: impl Fn(f64) -> bool) -> Vec<i64> {
    sink.of(series).into_iter().filter(|(value, _)| is_meant(*value)).map(|(_, time_ms)| time_ms).collect()
}

#[test]
fn a_reload_that_takes_a_target_away_ends_its_series_and_no_other() {
    let mut rng = Rng::new("reloads that change a scrape");
    let (sink, target) = (Sink::start(Mood::Works, rng.next()), Counting::start(page));
    let staying = Counting::start(page);
    let config = |instance: u64| {
        let stays = scrape(&staying, "stays", "").replace("\"pull\"", "\"other\"");
        format!("{}{}{stays}", steady(&sink), scrape(&target, &format!("i{instance}"), ""))
    };
    let corten = Corten::start_in(Folder::new(&config(0)), &[]);
    let changes = rounds(20);
    for instance in 1..=changes {
        target.scraped_more(rng.between(2, 4));
        // A scrape may take too long on a busy machine, and has no series then.
        let before = format!("__name__=\"torture_scrape\",at=\"49\",instance=\"i{}\"", instance - 1);
        until("its series are there", || if sink.of(&before).is_empty() { Err(before.clone()) } else { Ok(()) });
        let reloaded = corten.reload(&config(instance));
        assert_eq!(reloaded.status, 200, "{reloaded:?}");
    }
    let is_stale = |value: f64| value.to_bits() == wire::STALE;
    // Each series of a target that is gone ends with a marker, those of the scrapes themselves too, and those have no
    // other.
    for instance in 0..changes {
        let name = |series: &str| format!("__name__=\"{series},instance=\"i{instance}\"");
        for series in ["torture_scrape\",at=\"0\"", "torture_scrape\",at=\"49\"", "up\"", "scrape_series_added\""] {
            until("its series end", || match sink.of(&name(series)).last() {
                Some((value, _)) if is_stale(*value) => Ok(()),
                last => Err(format!("{}: {last:?}", name(series))),
            });
        }
        assert_eq!(times(&sink, &name("up\""), is_stale).len(), 1, "i{instance}");
    }
    target.scraped_more(2);
    corten.end();
    // Every scrape arrives, whichever label it had.
    expect_each_once(&sink, "instance=\"i", target.scrapes());
    expect_each_once(&sink, "instance=\"stays\"", staying.scrapes());
}
