//! Version 2 of the protocol.

use corten_config::schema::Stability;
use corten_signal::metrics::{Metadata, MetricType, SeriesMetadata};

use super::*;

const V2: &str = "name = \"n\"\nprotobuf_message = \"io.prometheus.write.v2.Request\"";

fn numbers_of(field: &Wire<'_>) -> Vec<u64> {
    let &Wire::Bytes(mut bytes) = field else { panic!("references are packed") };
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(varint(&mut bytes));
    }
    numbers
}

/// Labels by their references, in pairs.
fn labels_of(symbols: &[String], field: &Wire<'_>) -> Pairs {
    let refs = numbers_of(field);
    let text = |at: u64| symbols[at as usize].clone();
    refs.chunks(2).map(|pair| (text(pair[0]), text(pair[1]))).collect()
}

/// The series of a request of version 2.
pub(super) fn decode(body: &[u8]) -> Vec<Entry> {
    let message = snap::raw::Decoder::new().decompress_vec(body).expect("a snappy block");
    let fields_of_request = fields(&message);
    let symbols: Vec<String> =
        fields_of_request.iter().filter(|(number, _)| *number == 4).map(|(_, field)| text(field)).collect();
    assert_eq!(symbols[0], "");
    let mut entries = Vec::new();
    for (number, field) in &fields_of_request {
        let Wire::Bytes(series) = field else { panic!("the fields of a request are messages") };
        match number {
            4 => continue,
            5 => {}
            other => panic!("a request has no field {other}"),
        }
        let mut entry = Entry::default();
        for (number, field) in fields(series) {
            let Wire::Bytes(bytes) = field else { panic!("the fields of a series are messages") };
            match number {
                1 => entry.labels = labels_of(&symbols, &field),
                2 => entry.samples.push(decode_sample(bytes)),
                3 => entry.histograms.push(decode_histogram(bytes)),
                4 => {
                    let mut exemplar = (Vec::new(), 0, 0);
                    for (number, field) in fields(bytes) {
                        match (number, field) {
                            (1, field) => exemplar.0 = labels_of(&symbols, &field),
                            (2, Wire::Fixed(bits)) => exemplar.1 = bits,
                            (3, Wire::Number(time_ms)) => exemplar.2 = time_ms as i64,
                            (other, _) => panic!("an exemplar has no field {other}"),
                        }
                    }
                    entry.exemplars.push(exemplar);
                }
                5 => {
                    let mut known = Known::default();
                    for (number, field) in fields(bytes) {
                        match (number, field) {
                            (1, Wire::Number(metric_type)) => known.metric_type = metric_type,
                            (3, Wire::Number(help)) => known.help = symbols[help as usize].clone(),
                            (4, Wire::Number(unit)) => known.unit = symbols[unit as usize].clone(),
                            (other, _) => panic!("what is known has no field {other}"),
                        }
                    }
                    entry.known = Some(known);
                }
                other => panic!("a series has no field {other}"),
            }
        }
        entries.push(entry);
    }
    entries
}

/// An answer that says that everything was written.
fn all_written(seen: &Seen) -> Response<ServerBody> {
    let entries = decode(&seen.body);
    written(
        entries.iter().map(|entry| entry.samples.len()).sum(),
        entries.iter().map(|entry| entry.histograms.len()).sum(),
        entries.iter().map(|entry| entry.exemplars.len()).sum(),
    )
}

fn written(samples: usize, histograms: usize, exemplars: usize) -> Response<ServerBody> {
    let [samples, histograms, exemplars] = [samples, histograms, exemplars].map(|count| count.to_string());
    answer(
        200,
        &[
            ("X-Prometheus-Remote-Write-Samples-Written", &samples),
            ("X-Prometheus-Remote-Write-Histograms-Written", &histograms),
            ("X-Prometheus-Remote-Write-Exemplars-Written", &exemplars),
        ],
        "",
    )
}

#[tokio::test]
async fn it_is_experimental() {
    let world = World::with(ID, |services| services.stability = Stability::PublicPreview);
    let error = Unit::start(world, definition(), &endpoint("http://h/p", V2, "")).await.unwrap_err();
    assert!(error.contains("is at stability level \"experimental\""), "{error}");
}

#[tokio::test]
async fn a_request_has_its_headers_and_says_what_it_holds() {
    let (world, backend) = (host(ID), Backend::start(all_written).await);
    let mut unit = start(&world, &endpoint(&backend.url(), V2, QUICK)).await;
    let to = receiver(&world);
    let series: &[Series<'_>] =
        &[(&[("__name__", "a"), ("x", "1")], 1.5, 1000), (&[("__name__", "b"), ("x", "1")], -0.0, 2000)];
    push(&to, series).await;
    until("there is a request", || backend.entries().len() == 2).await;
    let seen = &backend.seen()[0];
    for (name, value) in [
        ("content-encoding", "snappy"),
        ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        ("x-prometheus-remote-write-version", "2.0.0"),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    let entries = backend.entries();
    let pairs = |entry: &Entry| entry.labels.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ");
    assert_eq!((pairs(&entries[0]), pairs(&entries[1])), ("__name__=a x=1".into(), "__name__=b x=1".into()));
    assert_eq!(
        (&*entries[0].samples, &*entries[1].samples),
        (&[(1.5f64.to_bits(), 1000)][..], &[((-0.0f64).to_bits(), 2000)][..])
    );
    assert_eq!(entries[0].known, None);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn histograms_of_all_kinds_are_sent_and_exemplars_with_their_samples() {
    for (attributes, histograms, exemplars) in [
        ("", 0, 1),
        ("send_native_histograms = true", 2, 1),
        ("send_exemplars = false\nsend_native_histograms = true", 2, 0),
    ] {
        let (world, backend) = (host(ID), Backend::start(all_written).await);
        let mut unit = start(&world, &endpoint(&backend.url(), &format!("{V2}\n{attributes}"), QUICK)).await;
        receiver(&world).consume(all_kinds()).await.unwrap();
        until("there is a request", || !backend.entries().is_empty()).await;
        let entries = backend.entries();
        assert_eq!(entries.len(), 1 + histograms);
        assert_eq!((entries[0].samples.len(), entries[0].exemplars.len()), (1, exemplars));
        for (entry, name) in entries[1..].iter().zip(["histogram", "bounds"]) {
            assert_eq!((entry.name(), entry.histograms[0].1), (name, 5001));
            let has_bounds = entry.histograms[0].0.contains(&16);
            assert_eq!(has_bounds, name == "bounds");
        }
        let of = |name| metric(&world, name, "n", &backend.url());
        until("the request is counted", || of("samples_total") == Some(1.0)).await;
        assert_eq!(of("histograms_total"), Some(histograms as f64));
        assert_eq!(of("exemplars_total"), Some(exemplars as f64));
        assert_eq!(dropped(&world, "histograms", "n", &backend.url(), "nhcb_in_rw1_not_supported"), 0.0);
        balanced(&unit.world).await;
        unit.drain().await;
    }
}

#[tokio::test]
async fn an_exemplar_without_a_sample_is_left_out_and_counted() {
    let (world, backend) = (host(ID), Backend::start(all_written).await);
    let mut unit = start(&world, &endpoint(&backend.url(), V2, QUICK)).await;
    let mut part = part(&[(&[("__name__", "a")], 1.0, 5000), (&[("__name__", "b")], 1.0, 5000)]);
    part.samples.truncate(1);
    part.exemplars = vec![Exemplar { index: 1, timestamp_ms: 5000, value: 1.0, labels: Vec::new() }];
    receiver(&world).consume(Arc::new(MetricsBatch::of(vec![part]))).await.unwrap();
    backend.has("a", 1).await;
    assert_eq!(backend.entries().len(), 1);
    assert_eq!(dropped(&world, "exemplars", "n", &backend.url(), "no_sample_in_rw2"), 1.0);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_as_large_as_they_may_be_and_keep_the_order_of_series() {
    let (world, backend) = (host(ID), Backend::start(|_| answer(503, &[], "")).await);
    let queue = format!("{QUICK}\nmax_samples_per_send = 7\nmin_shards = 3");
    let mut unit = start(&world, &endpoint(&backend.url(), V2, &queue)).await;
    for round in 0..6 {
        push_many(&receiver(&world), 10, round..round + 1).await;
    }
    until("it was tried", || !backend.seen().is_empty()).await;
    *backend.answer.lock() = Box::new(all_written);
    until("all has come", || backend.entries().len() == 60).await;
    for (name, values) in backend.series() {
        assert_eq!(values, numbers(6), "{name}");
    }
    assert!(backend.requests().iter().all(|request| (1..=7).contains(&request.len())));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_one_after_the_other_waits_for_the_deadline_and_is_one_request() {
    let (world, backend) = (host(ID), Backend::start(all_written).await);
    let queue = "max_samples_per_send = 40\nbatch_send_deadline = \"10m\"";
    let mut unit = start(&world, &endpoint(&backend.url(), V2, queue)).await;
    for round in 0..4 {
        push_many(&receiver(&world), 10, round..round + 1).await;
    }
    until("all has come", || backend.entries().len() == 40).await;
    assert_eq!(backend.requests().len(), 1);
    for (name, values) in backend.series() {
        assert_eq!(values, numbers(4), "{name}");
    }
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_too_large_is_sent_in_halves() {
    let (world, backend) = (host(ID), Backend::start(|_| answer(503, &[], "")).await);
    let queue = format!("{QUICK}\nmax_samples_per_send = 40");
    let mut unit = start(&world, &endpoint(&backend.url(), V2, &queue)).await;
    for round in 0..4 {
        push_many(&receiver(&world), 10, round..round + 1).await;
    }
    until("it was tried", || !backend.seen().is_empty()).await;
    *backend.answer.lock() =
        Box::new(|request| if decode(&request.body).len() > 20 { answer(413, &[], "") } else { all_written(request) });
    until("nothing waits", || metric(&world, "samples_pending", "n", &backend.url()) == Some(0.0)).await;
    assert_eq!(metric(&world, "samples_failed_total", "n", &backend.url()), Some(0.0));
    assert!(backend.seen().iter().any(|seen| decode(&seen.body).len() > 20), "none was too large");
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn an_answer_that_does_not_say_what_was_written_is_a_failure() {
    for headers in [&[][..], &[("X-Prometheus-Remote-Write-Samples-Written", "0")]] {
        let (world, backend) = (host(ID), Backend::start(move |_| answer(204, headers, "")).await);
        let mut unit = start(&world, &endpoint(&backend.url(), V2, QUICK)).await;
        push_number(&receiver(&world), "a", 0).await;
        let of = |name| metric(&world, name, "n", &backend.url());
        until("it is counted", || of("samples_failed_total") == Some(1.0)).await;
        assert_eq!((backend.seen().len(), of("samples_retried_total")), (1, Some(0.0)));
        until("nothing waits", || of("samples_pending") == Some(0.0)).await;
        let logs = world.logs();
        assert!(logs.contains("sent v2 request with 1 samples, 0 histograms and 0 exemplars; got 2xx, but"), "{logs}");
        balanced(&unit.world).await;
        unit.drain().await;
    }
}

#[tokio::test]
async fn what_was_not_written_is_counted_and_not_sent_again() {
    for status in [200, 400] {
        let (world, backend) = (
            host(ID),
            Backend::start(move |_| {
                let mut response = written(1, 0, 0);
                *response.status_mut() = status.try_into().unwrap();
                response
            })
            .await,
        );
        let mut unit = start(&world, &endpoint(&backend.url(), V2, QUICK)).await;
        push(&receiver(&world), &[(&[("__name__", "a")], 0.0, 1), (&[("__name__", "b")], 0.0, 1)]).await;
        let of = |name| metric(&world, name, "n", &backend.url());
        until("it is counted", || of("samples_failed_total") == Some(1.0)).await;
        until("nothing waits", || of("samples_pending") == Some(0.0)).await;
        assert_eq!(backend.seen().len(), 1);
        let text =
            if status == 200 { "statistics indicate some data was not written" } else { "non-recoverable error" };
        assert!(world.logs().contains(text), "{}", world.logs());
        balanced(&unit.world).await;
        unit.drain().await;
    }
}

#[tokio::test]
async fn a_peer_that_knows_version_1_alone_gets_nothing_else() {
    let (world, backend) = (host(ID), Backend::answering(415).await);
    let mut unit = start(&world, &endpoint(&backend.url(), V2, QUICK)).await;
    push_number(&receiver(&world), "a", 0).await;
    until("it is dropped", || metric(&world, "samples_failed_total", "n", &backend.url()) == Some(1.0)).await;
    assert_eq!(backend.seen().len(), 1);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn what_waits_when_the_version_changes_is_sent_in_the_old_one() {
    for restart in [false, true] {
        let (world, backend) = (host(ID), Backend::answering(503).await);
        let (old, new) = (
            endpoint(&backend.url(), V2, QUICK),
            endpoint(&backend.url(), "name = \"n\"", &format!("{QUICK}\nmax_samples_per_send = 100")),
        );
        let mut unit = start(&world, &old).await;
        for round in 0..3 {
            push_number(&receiver(&world), "a", round).await;
        }
        until("it was tried", || !backend.seen().is_empty()).await;
        if restart {
            balanced(&unit.world).await;
            unit.drain().await;
            unit = start(&world, &new).await;
        } else {
            unit.update(&new).await.unwrap();
        }
        push_number(&receiver(&world), "a", 3).await;
        *backend.answer.lock() =
            Box::new(
                |seen| {
                    if seen.header("content-type").contains("v2") { all_written(seen) } else { answer(200, &[], "") }
                },
            );
        backend.has("a", 4).await;
        assert_eq!(backend.values("a"), numbers(4), "restart: {restart}");
        let seen = backend.seen();
        assert_eq!(seen.last().unwrap().header("x-prometheus-remote-write-version"), "0.1.0");
        let old: Vec<&Seen> = seen.iter().filter(|seen| seen.header("content-type").contains("v2")).collect();
        assert!(!old.is_empty() && old.iter().all(|seen| decode(&seen.body).len() <= 3));
        until("the queue of the old version is gone", || queues(&world).len() == 1).await;
        balanced(&unit.world).await;
        unit.drain().await;
    }
}

#[tokio::test]
async fn what_is_known_of_a_series_goes_with_it_under_its_new_name_too() {
    let (world, backend) = (host(ID), Backend::start(all_written).await);
    let rule = "write_relabel_config {\nsource_labels = [\"__name__\"]\nregex = \"old_(.*)\"\n\
                target_label = \"__name__\"\nreplacement = \"new_$1\"\n}";
    let mut unit = start(&world, &endpoint(&backend.url(), &format!("{V2}\n{rule}"), QUICK)).await;
    let mut first = part(&[
        (&[("__name__", "old_bytes_count")], 1.0, now_ms()),
        (&[("__name__", "old_bytes_sum")], 2.0, now_ms()),
        (&[("__name__", "unknown")], 3.0, now_ms()),
    ]);
    let metadata = Arc::new(Metadata {
        family: "old_bytes".to_owned(),
        metric_type: MetricType::Histogram,
        help: "Some help.".to_owned(),
        unit: "bytes".to_owned(),
    });
    first.metadata = (0..2).map(|index| SeriesMetadata { index, metadata: Arc::clone(&metadata) }).collect();
    let mut later = first.clone();
    later.metadata.clear();
    let to = receiver(&world);
    for part in [first, later] {
        to.consume(Arc::new(MetricsBatch::of(vec![part]))).await.unwrap();
    }
    until("all has come", || backend.entries().len() == 6).await;
    let known = Known { metric_type: 3, help: "Some help.".into(), unit: "bytes".into(), family: String::new() };
    for entry in backend.entries() {
        let wanted = entry.name().starts_with("new_bytes_").then(|| known.clone());
        assert_eq!(entry.known, wanted, "{}", entry.name());
    }
    assert_eq!(metric(&world, "metadata_total", "n", &backend.url()), Some(4.0));
    assert_eq!(world.metric("prometheus_remote_write_wal_metadata_updates_total"), Some(2.0));
    // A lane that is new knows what came before it.
    unit.update(&endpoint(&backend.url(), V2, QUICK)).await.unwrap();
    push_number(&to, "old_bytes_sum", 7).await;
    backend.has("old_bytes_sum", 1).await;
    assert_eq!(backend.entries().last().unwrap().known, Some(known));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_receiver_of_this_program_takes_everything_and_says_so() {
    let collector = crate::collect::Collector::new();
    let listening = host("prometheus.receive_http.r");
    let definition_of_receiver = COMPONENTS.iter().find(|d| d.name == "prometheus.receive_http").unwrap();
    let body = "forward_to = [to]\nappend_metadata = true\n\
                accepted_remote_write_protobuf_messages = [\"io.prometheus.write.v2.Request\"]\n\
                http {\nlisten_address = \"127.0.0.1\"\nlisten_port = 0\n}";
    let names = [("to", collector.receiver())];
    let mut there = Unit::start_with(listening.clone(), definition_of_receiver, body, &names).await.unwrap();
    let port = corten_testkit::until_some("it listens", || {
        let logs = listening.logs();
        let line = logs.lines().rfind(|line| line.contains("listening for remote write requests"))?.to_owned();
        line.rsplit(':').next()?.trim_matches('"').parse::<u16>().ok()
    })
    .await;
    let world = host(ID);
    let url = format!("http://127.0.0.1:{port}/api/v1/metrics/write");
    let queue = format!("{QUICK}\nmin_shards = 2");
    let mut unit = start(&world, &endpoint(&url, &format!("{V2}\nsend_native_histograms = true"), &queue)).await;
    let mut part = all_kinds().parts[0].clone();
    let metadata = Metadata { family: "sample".into(), metric_type: MetricType::Gauge, ..Metadata::default() };
    part.metadata = vec![SeriesMetadata { index: 0, metadata: Arc::new(metadata) }];
    receiver(&world).consume(Arc::new(MetricsBatch::of(vec![part]))).await.unwrap();
    until("all has come", || {
        let batches = collector.batches();
        let sum = |count: fn(&crate::collect::Batch) -> usize| batches.iter().map(count).sum::<usize>();
        sum(|b| b.samples.len()) == 1 && sum(|b| b.histograms.len()) == 2 && sum(|b| b.exemplars.len()) == 1
    })
    .await;
    let batches = collector.batches();
    let histograms: Vec<_> = batches.iter().flat_map(|batch| batch.histograms.clone()).collect();
    for (name, schema) in [("histogram{}", 3), ("bounds{}", CUSTOM_BUCKETS_SCHEMA)] {
        let (_, got, time_ms) = histograms.iter().find(|(series, ..)| series == name).unwrap();
        assert_eq!((got, *time_ms), (&*histogram(schema), 5001), "{name}");
    }
    let exemplars: Vec<String> = batches.iter().flat_map(|batch| batch.exemplars.clone()).collect();
    assert_eq!(exemplars, ["sample{} {trace_id=\"t1\"} 0.25 @4999"]);
    let known: Vec<String> = batches.iter().flat_map(|batch| batch.metadata.clone()).collect();
    assert!(known.contains(&"sample{} sample gauge \"\" \"\"".to_owned()), "{known:?}");
    let of = |name| metric(&world, name, "n", &url);
    until("nothing waits", || of("samples_pending") == Some(0.0) && of("histograms_pending") == Some(0.0)).await;
    for name in ["samples_failed_total", "histograms_failed_total", "exemplars_failed_total"] {
        assert_eq!(of(name), Some(0.0), "{name}");
    }
    balanced(&unit.world).await;
    unit.drain().await;
    balanced(&there.world).await;
    there.drain().await;
}
