//! What a controller does with a configuration: order, references, atomic reloads, exports that change, the end.

mod components;

use std::collections::BTreeMap;

use components::{FAMILY, poke, trace};
use corten_component::HealthState;
use corten_config::schema::Stability;
use corten_testkit::{Pipeline, load, load_in, until};

async fn started(text: &str) -> Pipeline {
    load(text, &[FAMILY]).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn refused(text: &str) -> String {
    load(text, &[FAMILY]).await.expect_err("a refusal")
}

#[tokio::test]
async fn a_component_is_evaluated_after_those_that_it_refers_to() {
    let pipeline = started(
        "test.value \"c\" {\n\tinput = test.value.b.output + \"c\"\n}\n\
         test.value \"b\" {\n\tinput = test.value.a.output + \"b\"\n}\n\
         test.value \"a\" {\n\tinput = \"a\"\n}\n",
    )
    .await;
    assert_eq!(pipeline.exported("test.value.c", "output"), "\"abc\"");
    let node = pipeline.controller.component("test.value.b").unwrap();
    assert_eq!(node.references_to().iter().map(|id| &**id).collect::<Vec<_>>(), ["test.value.a"]);
    assert_eq!(node.referenced_by().iter().map(|id| &**id).collect::<Vec<_>>(), ["test.value.c"]);
}

#[tokio::test]
async fn exports_that_change_are_handed_on_to_everything_behind() {
    let pipeline = started(
        "test.value \"a\" {\n\tinput = \"1\"\n\tkey = \"handed_on\"\n}\n\
         test.value \"b\" {\n\tinput = test.value.a.output + \"b\"\n}\n\
         test.value \"c\" {\n\tinput = test.value.b.output + test.value.a.output\n}\n",
    )
    .await;
    poke("handed_on", "2");
    until("the change has arrived", || pipeline.exported("test.value.c", "output") == "\"2b2\"").await;
}

#[tokio::test]
async fn a_component_that_cannot_take_a_change_keeps_the_old_and_turns_unhealthy() {
    let pipeline = started(
        "test.value \"a\" {\n\tinput = \"fine\"\n\tkey = \"turns_unhealthy\"\n}\n\
         test.value \"b\" {\n\tinput = test.value.a.output\n}\n",
    )
    .await;
    poke("turns_unhealthy", "refuse me");
    until("the component is unhealthy", || pipeline.health("test.value.b").state == HealthState::Unhealthy).await;
    assert_eq!(pipeline.exported("test.value.b", "output"), "\"fine\"");
    assert!(pipeline.health("test.value.b").message.starts_with("component evaluation failed: "));
    poke("turns_unhealthy", "fine again");
    until("the component is healthy", || pipeline.health("test.value.b").state == HealthState::Healthy).await;
    assert_eq!(pipeline.exported("test.value.b", "output"), "\"fine again\"");
}

#[tokio::test]
async fn a_refused_reload_changes_nothing_and_reports_everything() {
    let pipeline = started(
        "test.value \"a\" {\n\tinput = \"1\"\n\tkey = \"refused_reload\"\n}\n\
         test.value \"gone\" {\n\tinput = \"x\"\n}\n",
    )
    .await;
    let before = trace("refused_reload");
    let error = pipeline
        .reload(
            "test.value \"a\" {\n\tinput = \"2\"\n\tkey = \"refused_reload\"\n}\n\
             test.value \"b\" {\n\tinput = \"refuse me\"\n}\n\
             test.value \"c\" {\n\tinput = 1 + \"x\"\n}\n",
        )
        .await
        .unwrap_err();
    assert_eq!(
        error,
        "test.alloy:5:1: Failed to build component: building component: refused (and 1 more diagnostics)"
    );
    assert_eq!(trace("refused_reload"), before, "nothing was committed");
    assert_eq!(pipeline.exported("test.value.a", "output"), "\"1\"");
    assert!(pipeline.controller.component("test.value.gone").is_some());
    assert!(pipeline.controller.component("test.value.b").is_none());
}

#[tokio::test]
async fn a_reload_touches_only_what_changed() {
    let pipeline = started(
        "test.value \"same\" {\n\tinput = \"1\"\n\tkey = \"touch_same\"\n}\n\
         test.value \"other\" {\n\tinput = \"1\"\n\tkey = \"touch_other\"\n}\n\
         test.value \"gone\" {\n\tinput = \"1\"\n\tkey = \"touch_gone\"\n}\n",
    )
    .await;
    pipeline
        .reload(
            "// Another layout.\n\
             test.value \"other\" {\n\tkey = \"touch_other\"\n\tinput = \"2\"\n}\n\n\n\
             test.value \"same\" {\n\tkey   = \"touch\" + \"_same\"\n\tinput = \"1\"\n}\n",
        )
        .await
        .unwrap();
    assert_eq!(trace("touch_same"), ["commit 1"]);
    assert_eq!(trace("touch_other"), ["commit 1", "commit 2"]);
    assert_eq!(trace("touch_gone"), ["commit 1", "drain"]);
    pipeline.shutdown().await;
    assert_eq!(trace("touch_same"), ["commit 1", "drain"]);
}

#[tokio::test]
async fn what_refers_to_others_ends_before_them() {
    let pipeline = started(
        "test.value \"a\" {\n\tinput = \"1\"\n\tkey = \"order_a\"\n}\n\
         test.value \"b\" {\n\tinput = test.value.a.output\n\tkey = \"order_b\"\n}\n",
    )
    .await;
    pipeline.shutdown().await;
    let times: BTreeMap<&str, usize> =
        ["order_a", "order_b"].into_iter().map(|key| (key, components::place_of_drain(key))).collect();
    assert!(times["order_b"] < times["order_a"], "{times:?}");
}

#[tokio::test]
async fn wrong_graphs_are_refused_with_their_place() {
    for (text, want) in [
        ("nothing.here \"a\" { }\n", "test.alloy:1:1: cannot find the definition of component name \"nothing.here\""),
        ("test.value { }\n", "test.alloy:1:1: component \"test.value\" must have a label"),
        (
            "test.value \"a\" {\n\tinput = \"1\"\n}\ntest.value \"a\" {\n\tinput = \"2\"\n}\n",
            "test.alloy:4:1: block test.value.a already declared at test.alloy:1:1",
        ),
        (
            "test.value \"a\" {\n\tinput = test.value.b.output\n}\n",
            "test.alloy:2:10: component \"test.value.b.output\" does not exist or is out of scope",
        ),
        ("test.value \"a\" {\n\tinput = test.value.a.output\n}\n", "-: self reference: test.value.a"),
        (
            "test.value \"a\" {\n\tinput = test.value.b.output\n}\ntest.value \"b\" {\n\tinput = test.value.a.output\n}\n",
            "-: cycle: test.value.a, test.value.b",
        ),
        ("argument \"a\" { }\n", "test.alloy:1:1: argument blocks only allowed inside a module"),
        ("declare \"a\" { }\n", "test.alloy:1:1: declare blocks are not implemented"),
        ("cluster { }\n", "test.alloy:1:1: service \"cluster\" does not support being configured"),
        (
            "test.value \"a\" { }\n",
            "test.alloy:1:1: Failed to build component: decoding configuration: missing required attribute \"input\"",
        ),
        ("test.value \"a\" {\n\tinput = [1]\n}\n", "test.alloy:2:10: [1] should be string, got array"),
    ] {
        assert_eq!(refused(text).await, want, "{text}");
    }
}

#[tokio::test]
async fn what_is_not_stable_enough_is_refused() {
    let text = "test.experiment \"a\" { }\n";
    let at = |level| load_in(text, &[FAMILY], move |services| services.stability = level);
    assert_eq!(
        at(Stability::GenerallyAvailable).await.unwrap_err(),
        "test.alloy:1:1: component \"test.experiment\" is at stability level \"experimental\", which is below the minimum \
         allowed stability level \"generally-available\". Use --stability.level command-line flag to enable \
         \"experimental\" features"
    );
    assert!(at(Stability::Experimental).await.is_ok());
}

#[tokio::test]
async fn a_component_that_panics_when_prepared_is_an_error_of_the_load() {
    let error = refused("test.value \"a\" {\n\tinput = \"panic\"\n}\n").await;
    assert_eq!(error, "test.alloy:1:1: Failed to build component: building component: panicked: asked for it");
}

#[tokio::test]
async fn a_path_finds_the_component_with_the_longest_id() {
    let pipeline = started("test.value \"a\" {\n\tinput = \"1\"\n}\n").await;
    let (node, rest) = pipeline.controller.component_at("test.value.a/metrics/x").unwrap();
    assert_eq!((node.id.as_str(), rest), ("test.value.a", "/metrics/x"));
    assert!(pipeline.controller.component_at("test.value.b/metrics").is_none());
}

#[tokio::test]
async fn a_thousand_reloads_leave_nothing_behind() {
    let pipeline = started("test.value \"a\" {\n\tinput = \"0\"\n}\n").await;
    for round in 0..1000 {
        let name = ["a", "b"][round % 2];
        pipeline.reload(&format!("test.value \"{name}\" {{\n\tinput = \"{round}\"\n}}\n")).await.unwrap();
    }
    assert_eq!(pipeline.controller.components().len(), 1);
    let metrics = pipeline.metrics().text();
    assert_eq!(metrics.matches("alloy_component_controller_running_components{").count(), 1, "{metrics}");
}
