//! The thin thread of the whole: targets from a file, scraped and written to one endpoint. It exists to measure the data
//! path, until `corten run` does the same from a configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corten_prometheus::remote_write::{Lane, send_all};
use corten_prometheus::scrape::TargetLoop;
use corten_queue::{Options, Queue, ReaderOptions};
use corten_signal::{Fanout, Inlet, LabelsBuilder, Metrics};

pub(crate) fn main() {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|a| a == name).unwrap_or_else(|| panic!("{name} is missing"));
        arguments[at + 1].clone()
    };
    let targets = std::fs::read_to_string(value("--targets")).expect("a file of targets");
    let interval = Duration::from_millis(value("--interval").trim_end_matches("ms").parse().expect("milliseconds"));
    let url: http::Uri = value("--url").parse().expect("a URL");
    let storage = PathBuf::from(value("--storage.path"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(std::env::var("W").ok().and_then(|w| w.parse().ok()).unwrap_or(2)).enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let queue = Queue::open(&storage.join("queue"), Options::default()).expect("a queue");
        let reader = Arc::new(queue.reader(
            "sink",
            ReaderOptions { items_max: 2000, wait_max: Duration::from_secs(5), ..ReaderOptions::default() },
        ));
        let executor = hyper_util::rt::TokioExecutor::new();
        tokio::spawn(send_all(reader, hyper_util::client::legacy::Client::builder(executor.clone()).build_http(), url));
        let inlet = Inlet::<Metrics>::new("prometheus.remote_write.thin");
        inlet.attach(Arc::new(Lane::new("prometheus.remote_write.thin", queue, 2000)));
        let client: hyper_util::client::legacy::Client<_, http_body_util::Empty<bytes::Bytes>> =
            hyper_util::client::legacy::Client::builder(executor).build_http();
        let lines: Vec<&str> = targets.lines().filter(|l| !l.is_empty()).collect();
        for (i, line) in lines.iter().enumerate() {
            let uri: http::Uri = line.parse().expect("a target's URL");
            let mut labels = LabelsBuilder::new();
            labels.push("instance", uri.authority().map_or("", |a| a.as_str()));
            labels.push("job", "bench");
            labels.push("target", &i.to_string());
            let fanout = Fanout::new(vec![inlet.receiver()]);
            let target = TargetLoop::new(uri, client.clone(), labels, interval, 0x5eed, fanout);
            tokio::spawn(target.run(interval.mul_f64(i as f64 / lines.len() as f64)));
        }
        tokio::signal::ctrl_c().await.expect("a signal");
    });
}
