//! What is known of metrics, in version 1 of the protocol.

use corten_signal::metrics::{Metadata, MetricType, SeriesMetadata};

use super::*;

/// A batch that says something of families with these names.
fn batch(names: &[&str]) -> Arc<MetricsBatch> {
    let labels: Vec<[(&str, &str); 1]> = names.iter().map(|name| [("__name__", *name)]).collect();
    let series: Vec<Series<'_>> = labels.iter().map(|labels| (&labels[..], 1.0, now_ms())).collect();
    let mut part = part(&series);
    part.metadata = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let metadata = Metadata {
                family: (*name).to_owned(),
                metric_type: MetricType::Counter,
                help: format!("Help of {name}."),
                unit: "seconds".to_owned(),
            };
            SeriesMetadata { index: index as u32, metadata: Arc::new(metadata) }
        })
        .collect();
    Arc::new(MetricsBatch::of(vec![part]))
}

fn known(name: &str) -> Known {
    Known { metric_type: 1, family: name.to_owned(), help: format!("Help of {name}."), unit: "seconds".to_owned() }
}

fn config(text: &str) -> String {
    format!("name = \"n\"\nmetadata_config {{\n{text}\n}}")
}

#[tokio::test]
async fn it_is_sent_again_and_again_in_requests_of_max_samples_per_send() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let every = config("send_interval = \"400ms\"\nmax_samples_per_send = 2");
    let mut unit = start(&world, &endpoint(&backend.url(), &every, QUICK)).await;
    receiver(&world).consume(batch(&["a", "b", "c"])).await.unwrap();
    until("it came twice", || backend.known.lock().len() >= 4).await;
    let requests = backend.known.lock().clone();
    let (first, rest) = ([known("a"), known("b")], [known("c")]);
    assert_eq!(requests[..4], [&first[..], &rest, &first, &rest]);
    let seen = backend.seen();
    let last = seen.last().unwrap();
    assert_eq!(last.header("content-type"), "application/x-protobuf");
    let of = |name| metric(&world, name, "n", &backend.url());
    assert!(of("metadata_total") >= Some(6.0));
    assert!(of("metadata_bytes_total") > Some(0.0));
    assert_eq!((of("metadata_failed_total"), of("metadata_retried_total")), (Some(0.0), Some(0.0)));
    backend.has("c", 1).await;
    assert_eq!(of("samples_total"), Some(3.0));
    assert_eq!(world.metric("prometheus_remote_write_wal_metadata_updates_total"), Some(3.0));
    // A reload stops it, and it begins again.
    unit.update(&endpoint(&backend.url(), &config("send = false"), QUICK)).await.unwrap();
    // The round that is under way has two requests.
    let count = backend.known.lock().len() + 2;
    stays("none comes", Duration::from_secs(1), || backend.known.lock().len() <= count).await;
    unit.update(&endpoint(&backend.url(), &every, QUICK)).await.unwrap();
    until("it comes again", || backend.known.lock().len() > count).await;
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn what_is_not_handed_on_is_not_sent() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let every = config("send_interval = \"10ms\"");
    let mut unit = start(&world, &endpoint(&backend.url(), &every, QUICK)).await;
    push_number(&receiver(&world), "a", 0).await;
    backend.has("a", 1).await;
    stays("no other request comes", Duration::from_millis(100), || backend.seen().len() == 1).await;
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn it_is_tried_again_for_a_round_and_what_is_refused_is_counted() {
    let (world, backend) = (host(ID), Backend::answering(500).await);
    let every = config("send_interval = \"100ms\"");
    let mut unit = start(&world, &endpoint(&backend.url(), &every, QUICK)).await;
    receiver(&world).consume(batch(&["a"])).await.unwrap();
    let of = |name| metric(&world, name, "n", &backend.url());
    until("it is tried again", || of("metadata_retried_total") >= Some(1.0)).await;
    until("a round is given up", || of("metadata_failed_total") >= Some(1.0)).await;
    backend.turn(400);
    let failed = of("metadata_failed_total").unwrap();
    until("it is refused", || of("metadata_failed_total") >= Some(failed + 2.0)).await;
    assert!(world.logs().contains("non-recoverable error while sending metadata"), "{}", world.logs());
    backend.turn(200);
    until("it has come", || backend.known.lock().contains(&vec![known("a")])).await;
    balanced(&unit.world).await;
    unit.drain().await;
}
