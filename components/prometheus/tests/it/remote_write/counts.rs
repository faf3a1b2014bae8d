//! What is counted by kind.

use super::*;

const KINDS: [&str; 3] = ["samples", "histograms", "exemplars"];

/// The figures of the kinds.
fn of_kinds(count: impl Fn(&str) -> f64) -> [f64; 3] {
    KINDS.map(count)
}

#[tokio::test]
async fn what_rules_drop_is_counted_by_kind() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let rule = "name = \"n\"\nsend_native_histograms = true\n\
                write_relabel_config {\nsource_labels = [\"__name__\"]\nregex = \"a\"\naction = \"keep\"\n}";
    let mut unit = start(&world, &endpoint(&backend.url(), rule, QUICK)).await;
    let to = receiver(&world);
    to.consume(all_kinds()).await.unwrap();
    push_number(&to, "a", 0).await;
    backend.has("a", 1).await;
    let reason = |kind: &str| dropped(&world, kind, "n", &backend.url(), "dropped_series");
    assert_eq!(of_kinds(reason), [1.0, 2.0, 1.0]);
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn what_waits_and_what_becomes_too_old_is_counted_by_kind() {
    let (world, backend) = (host(ID), Backend::answering(500).await);
    let kinds = "name = \"n\"\nsend_native_histograms = true";
    let mut unit = start(&world, &endpoint(&backend.url(), kinds, QUICK)).await;
    receiver(&world).consume(all_kinds()).await.unwrap();
    until("it is tried", || !backend.seen().is_empty()).await;
    let pending = |kind: &str| metric(&world, &format!("{kind}_pending"), "n", &backend.url()).unwrap();
    assert_eq!(of_kinds(pending), [1.0, 1.0, 1.0]);
    // The samples are of 1970.
    let queue = format!("{QUICK}\nsample_age_limit = \"1h\"");
    unit.update(&endpoint(&backend.url(), kinds, &queue)).await.unwrap();
    let too_old = |kind: &str| dropped(&world, kind, "n", &backend.url(), "too_old");
    until("it is dropped", || of_kinds(too_old) == [1.0, 1.0, 1.0]).await;
    assert_eq!(of_kinds(pending), [0.0, 0.0, 0.0]);
    let appended = |kind: &str| world.metric(&format!("prometheus_remote_write_wal_{kind}_appended_total")).unwrap();
    assert_eq!((appended("samples"), appended("exemplars")), (3.0, 1.0));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn the_metrics_of_an_endpoint_go_with_it() {
    let (world, backend) = (host(ID), Backend::willing().await);
    let kinds = "name = \"gone\"\nsend_native_histograms = true";
    let mut unit = start(&world, &endpoint(&backend.url(), kinds, QUICK)).await;
    receiver(&world).consume(all_kinds()).await.unwrap();
    until("it has come", || !backend.entries().is_empty()).await;
    assert!(world.metrics().text().contains("gone"));
    unit.update("").await.unwrap();
    until("all are gone", || !world.metrics().text().contains("gone")).await;
    balanced(&unit.world).await;
    unit.drain().await;
}
