//! Ten times of what the endpoint takes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::net::Counting;
use super::push::Seen;
use super::sink::{Mood, Sink};
use super::{Rng, expect_ready, metric, resident_max, until};
use crate::support::{Corten, Folder};

const TARGETS: usize = 5;
const SERIES: usize = 1_000;
/// The endpoint takes 500 samples in a fifth of a second; there are 25,000 a second.
const SLOW: Duration = Duration::from_millis(200);

fn write(sink: &Sink) -> String {
    format!(
        "prometheus.remote_write \"out\" {{
	endpoint {{
		url = \"http://{}/api/v1/write\"
		queue_config {{
			max_shards           = 1
			max_samples_per_send = 500
			batch_send_deadline  = \"50ms\"
		}}
	}}
	wal {{
		max_bytes = \"1MiB\"
	}}
}}
",
        sink.address
    )
}

fn scrape(targets: &[Counting]) -> String {
    let targets: String = targets
        .iter()
        .enumerate()
        .map(|(at, target)| format!("\t\t{{ __address__ = \"{}\", instance = \"i{at}\" }},\n", target.address()))
        .collect();
    format!(
        "prometheus.scrape \"pull\" {{
	targets = [
{targets}	]
	forward_to      = [prometheus.remote_write.out.receiver]
	scrape_interval = \"200ms\"
	scrape_timeout  = \"200ms\"
}}
"
    )
}

#[test]
fn what_the_endpoint_cannot_take_goes_oldest_first_and_counted_while_memory_stays_bounded() {
    let mut rng = Rng::new("load");
    let sink = Sink::start(Mood::Slow(SLOW), rng.next());
    let page = |scrape| (0..SERIES).map(|at| format!("torture_scrape{{at=\"{at}\"}} {scrape}\n")).collect();
    let targets: Vec<Counting> = (0..TARGETS).map(|_| Counting::start(page)).collect();
    let folder = Folder::new(&format!("{}{}", write(&sink), scrape(&targets)));
    let mut corten = Corten::start_in(folder, &["--feature.component-shutdown-deadline=2s"]);
    let value = |corten: &Corten, name: &str| metric(corten, name, &[]).unwrap_or_default();
    let dropped = |corten: &Corten| {
        let reason = ["reason=\"overflow\""];
        metric(corten, "prometheus_remote_storage_samples_dropped_total", &reason).unwrap_or_default()
    };
    until("the oldest goes", || match dropped(&corten) {
        dropped if dropped > 20_000.0 => Ok(()),
        dropped => Err(format!("{dropped} samples were dropped")),
    });
    expect_ready(&corten);
    let bytes = value(&corten, "prometheus_tsdb_wal_storage_size_bytes");
    assert!(bytes <= f64::from(1 << 20), "{bytes} bytes on disk");
    let memory = resident_max(&corten);
    assert!(memory.is_none_or(|bytes| bytes < 150 << 20), "{memory:?} bytes");
    // Nothing comes in any more. What waits is more than can be sent in the time that the program has to end.
    assert_eq!(corten.reload(&write(&sink)).status, 200);
    corten.balanced();
    let lost = dropped(&corten);
    let came = value(&corten, "prometheus_remote_storage_samples_in_total");
    let before = sink.len();
    corten.signal(rustix::process::Signal::TERM);
    let asked = Instant::now();
    assert!(corten.wait().success());
    let took = asked.elapsed();
    // All of it would take a minute.
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(sink.len() > before, "it sends until the last moment");
    let folder = corten.kill();
    sink.set(Mood::Works);
    let corten = Corten::start_in(folder, &[]);
    let mut unique = HashSet::new();
    let mut read = 0;
    until("the rest arrives", || {
        let taken = sink.taken();
        for request in &taken[read..] {
            unique.extend(request.samples.iter().map(|(series, _, time_ms)| (*series, *time_ms)));
        }
        read = taken.len();
        match unique.len() as f64 + lost + dropped(&corten) {
            sum if sum == came => Ok(()),
            sum => Err(format!("{sum} of {came}, {lost} were dropped")),
        }
    });
    let mut seen = Seen::default();
    seen.read(&sink);
    // The request that was under way at the end.
    assert!(seen.repeats.len() <= 1 + seen.late, "{:?}", seen.repeats);
    corten.end();
}
