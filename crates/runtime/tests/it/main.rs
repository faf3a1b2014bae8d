//! What a controller does with a configuration: order, references, atomic reloads, exports that change, the end.

mod components;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

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
async fn a_rule_of_building_says_so_and_knows_the_level_of_stability() {
    let text = "test.value \"a\" {\n\tinput = \"experimental\"\n}\n";
    let place = "test.alloy:1:1: Failed to build component";
    assert!(load(text, &[FAMILY]).await.is_ok());
    let stable =
        |text: &'static str| load_in(text, &[FAMILY], |services| services.stability = Stability::GenerallyAvailable);
    assert_eq!(stable(text).await.unwrap_err(), format!("{place}: building component: input is experimental"));
    let running = stable("test.value \"a\" {\n\tinput = \"x\"\n}\n").await.unwrap();
    assert_eq!(running.reload(text).await.unwrap_err(), format!("{place}: updating component: input is experimental"));
}

#[tokio::test]
async fn after_a_load_everything_has_started_and_nothing_is_evaluated_again() {
    let pipeline = started(
        "test.value \"a\" {\n\tinput = \"1\"\n\tkey = \"started\"\n}\n\
         test.value \"b\" {\n\tinput = test.value.a.output\n\tkey = \"started\"\n}\n",
    )
    .await;
    // What comes through the same queue comes after whatever a load left in it.
    poke("started", "2");
    until("the change has arrived", || pipeline.exported("test.value.b", "output") == "\"2\"").await;
    assert_eq!(pipeline.health("test.value.a").message, "started component");
    assert_eq!(trace("started"), ["commit 1", "commit 1", "commit 2"]);
    let evaluations = "alloy_component_evaluation_seconds_count{controller_id=\"\",controller_path=\"/\"} 1\n";
    until("one evaluation was counted", || pipeline.metrics().text().contains(evaluations)).await;
}

#[tokio::test]
async fn what_a_component_exports_as_soon_as_it_is_in_place_is_handed_on() {
    let pipeline = started(
        "test.value \"a\" {\n\tinput = \"later\"\n}\n\
         test.value \"b\" {\n\tinput = test.value.a.output\n}\n",
    )
    .await;
    until("the change has arrived", || pipeline.exported("test.value.b", "output") == "\"later still\"").await;
}

#[tokio::test]
async fn a_reload_makes_a_component_healthy_that_has_its_old_arguments_again() {
    let text = |more: &str| {
        format!(
            "test.value \"a\" {{\n\tinput = \"fine\"\n\tkey = \"healthy_again\"\n}}\n\
             test.value \"b\" {{\n\tinput = {more}\n}}\n"
        )
    };
    let pipeline = started(&text("test.value.a.output")).await;
    poke("healthy_again", "refuse me");
    until("the component is unhealthy", || pipeline.health("test.value.b").state == HealthState::Unhealthy).await;
    pipeline.reload(&text("\"fine\"")).await.unwrap();
    let health = pipeline.health("test.value.b");
    assert_eq!((health.state, health.message.as_str()), (HealthState::Healthy, "component evaluated"));
}

#[tokio::test]
async fn an_error_in_one_component_hides_none_in_those_that_refer_to_it() {
    let error = load(
        "test.value \"a\" {\n\tinput = \"refuse me\"\n}\n\
         test.value \"b\" {\n\tinput = test.value.a.output + true\n}\n\
         test.value \"c\" {\n\tinput = test.value.b.nothing\n\tkey = []\n}\n",
        &[FAMILY],
    )
    .await
    .unwrap_err();
    assert_eq!(
        error,
        "test.alloy:1:1: Failed to build component: building component: refused (and 3 more diagnostics)"
    );
}

#[test]
fn a_check_reports_what_is_wrong_with_the_graph_and_with_what_is_in_it() {
    let check = |text: &str| {
        let texts = [("t".to_owned(), text.to_owned())];
        let source = corten_runtime::source::from_texts(&texts).unwrap();
        let catalog = corten_runtime::Catalog::default().with(corten_runtime::NodeKind::Component, FAMILY);
        let permissions = corten_runtime::Permissions { stability: Stability::GenerallyAvailable };
        let found = corten_runtime::validate(&source.blocks, &catalog, permissions);
        found.into_iter().map(|diagnostic| diagnostic.to_string()).collect::<Vec<_>>()
    };
    let text = "test.value \"a\" {\n\tinput = test.value.gone.output + test.value.b.output\n\tkey = [1]\n}\n\
                test.value \"b\" {\n\tinput = test.value.b.output\n}\n\
                test.value \"c\" {\n\tinput = test.value.a.nothing + test.value.gone\n}\n\
                test.value \"c\" {\n\tinput = \"experimental\"\n}\n\
                test.value \"d\" {\n\tinput = \"experi\" + \"mental\"\n}\n\
                test.value \"e\" {\n\tinput = join([test.value.d.output, test.value.d], \"\")\n}\n\
                test.value \"f\" {\n\tinput = test.value.g.output\n}\n\
                test.value \"g\" {\n\tinput = test.value.f.output\n}\n";
    assert_eq!(
        check(text),
        [
            "t:2:10: component \"test.value.gone.output\" does not exist or is out of scope",
            "t:3:8: expected string, got array",
            "t:5:1: cannot reference self",
            "t:9:23: field \"nothing\" does not exist",
            "t:9:33: component \"test.value.gone\" does not exist or is out of scope",
            "t:11:1: block test.value.c already declared at t:8:1",
            "t:15:2: input is experimental",
            "t:18:10: this stdlib function is deprecated; please refer to the documentation for updated usage and \
             alternatives: join is now string.join",
            "t:20:1: cycle detected: test.value.f, test.value.g",
            "t:23:1: cycle detected: test.value.f, test.value.g",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_never_ends_is_given_up_and_holds_up_only_what_it_refers_to() {
    let pipeline = started(
        "test.value \"a\" {\n\tinput = \"never ends\"\n}\n\
         test.value \"b\" {\n\tinput = \"never ends\"\n}\n\
         test.value \"c\" {\n\tinput = test.value.a.output\n}\n\
         test.value \"d\" {\n\tinput = \"fine\"\n}\n",
    )
    .await;
    let hosts = ["a", "b", "c", "d"]
        .map(|label| Arc::clone(&pipeline.controller.component(&format!("test.value.{label}")).unwrap().host));
    let before = tokio::time::Instant::now();
    pipeline.controller.shutdown().await;
    // The deadline is that of each: b and c are given up together, and a after c.
    assert_eq!(before.elapsed().as_secs(), 120);
    let late = "component shut down with error: task shutdown deadline exceeded";
    let health = hosts.map(|host| host.health.current());
    assert!(health.iter().all(|health| health.state == HealthState::Exited));
    assert_eq!(health.map(|health| health.message), [late, late, late, "component shut down cleanly"]);
    let logs = pipeline.logs();
    let told =
        "msg=\"node exited with error\" taskID=test.value.b node=test.value.b err=\"task shutdown deadline exceeded\"";
    assert!(logs.contains(told), "{logs}");
}

#[tokio::test]
async fn the_lines_of_a_load_are_those_of_the_reference() {
    let pipeline = started("test.value \"a\" {\n\tinput = \"fine\"\n}\n").await;
    pipeline.reload("test.value \"a\" {\n\tinput = join([\"refuse me\"], \"\")\n}\n").await.unwrap_err();
    pipeline.reload("test.value \"a\" {\n\tinput = test.value.b.output\n}\n").await.unwrap_err();
    let logs = pipeline.logs();
    let shown: Vec<String> = logs
        .lines()
        .map(|line| {
            let fields = line.split_once(" level=").unwrap().1.split(' ');
            let fields = fields.map(|field| match field.split_once('=') {
                Some((key @ ("trace_id" | "duration"), _)) => key,
                _ => field,
            });
            fields.collect::<Vec<_>>().join(" ")
        })
        .collect();
    let load = [
        "info msg=\"starting complete graph evaluation\" trace_id",
        "info msg=\"finished node evaluation\" trace_id node_id=test.value.a duration",
        "info msg=\"finished complete graph evaluation\" trace_id duration",
    ];
    let expected = [
        &load[..],
        &[
            "info msg=\"scheduling loaded components and services\"",
            "warn msg=\"this stdlib function is deprecated; please refer to the documentation for updated usage and \
             alternatives\" function=join",
            load[0],
            "error msg=\"failed to evaluate config\" trace_id node=test.value.a err=\"updating component: refused\"",
        ],
        &load[1..],
    ];
    assert_eq!(shown, expected.concat());
    let traces: std::collections::BTreeSet<&str> =
        logs.split_whitespace().filter_map(|field| field.strip_prefix("trace_id=")).collect();
    assert!(traces.len() == 2 && traces.iter().all(|trace| trace.len() == 32), "{traces:?}");
}

#[tokio::test]
async fn the_health_of_a_failed_evaluation_says_what_failed() {
    let pipeline = started(
        "test.value \"a\" {\n\tinput = \"{}\"\n\tkey = \"health_text\"\n}\n\
         test.value \"b\" {\n\tinput = test.value.a.output\n}\n\
         test.value \"c\" {\n\tinput = coalesce(encoding.from_json(test.value.a.output), \"x\")\n}\n",
    )
    .await;
    poke("health_text", "refuse me");
    let failed = |id: &str| {
        let health = pipeline.health(id);
        (health.state == HealthState::Unhealthy).then_some(health.message)
    };
    until("both are unhealthy", || failed("test.value.b").is_some() && failed("test.value.c").is_some()).await;
    assert_eq!(failed("test.value.b").unwrap(), "component evaluation failed: updating component: refused");
    let text = failed("test.value.c").unwrap();
    let place = "component evaluation failed: decoding configuration: test.alloy:9:19: encoding.from_json ";
    assert!(text.starts_with(place), "{text}");
}

#[tokio::test]
async fn connections_are_counted_in_the_direction_of_the_flow() {
    let pipeline = started(
        "test.value \"a\" {\n\tinput = \"1\"\n}\n\
         test.value \"b\" {\n\tinput = test.value.a.output + test.value.a.output\n}\n\
         labelstore { }\n",
    )
    .await;
    let connections = || {
        let text = pipeline.metrics().text();
        let lines = text.lines().filter(|line| line.starts_with("alloy_component_graph_connection{"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let labels = "controller_id=\"\",controller_path=\"/\",from=\"test.value.a\",to=\"test.value.b\"";
    assert_eq!(connections(), [format!("alloy_component_graph_connection{{{labels}}} 1")]);
    pipeline.reload("test.value \"a\" {\n\tinput = \"1\"\n}\n").await.unwrap();
    assert_eq!(connections(), [""; 0]);
}

#[tokio::test]
async fn the_metrics_of_loads_tell_refused_ones_from_those_that_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.alloy");
    let pipeline = started("").await;
    let controller = &pipeline.controller;
    let load = async |text: &str| {
        std::fs::write(&path, text).unwrap();
        let result = controller.load(&path).await;
        let metrics = pipeline.metrics().text();
        let of = |name: &str| {
            let start = format!("alloy_config_{name}");
            metrics.lines().find(|line| line.starts_with(&start)).unwrap_or_default().to_owned()
        };
        (
            result.map_err(|error| error.describe(&path)),
            of("last_load_successful"),
            of("load_failures_total"),
            of("hash"),
        )
    };
    let fine = "test.value \"a\" {\n\tinput = \"1\"\n}\n";
    let (result, successful, failures, hash) = load(fine).await;
    assert_eq!(
        (result, successful.as_str(), failures.as_str()),
        (Ok(()), "alloy_config_last_load_successful 1", "alloy_config_load_failures_total 0",)
    );
    assert!(hash.contains("sha256=\"") && hash.contains("cluster_name=\"\"") && hash.ends_with(" 1"), "{hash}");
    let place = path.display();
    for (at, (text, error)) in [
        ("x", format!("reading config path \"{place}\": {place}:1:2: expected block label, got TERMINATOR")),
        ("test.value \"a\" { }", format!(
            "error during the initial load: {place}:1:1: Failed to build component: decoding configuration: missing \
             required attribute \"input\""
        )),
    ].into_iter().enumerate() {
        let (result, successful, failures, kept) = load(text).await;
        assert_eq!(result.unwrap_err(), error);
        assert_eq!(successful, "alloy_config_last_load_successful 0");
        assert_eq!(failures, format!("alloy_config_load_failures_total {}", at + 1));
        assert_eq!(kept, hash);
    }
}

#[tokio::test]
async fn blocks_that_configure_nothing_say_so() {
    let defaults = "labelstore { }\ntracing {\n\tsampling_fraction = 1\n\twrite_to = []\n}\n";
    started(defaults).await;
    assert_eq!(
        refused("tracing {\n\tsend_traceparent = true\n}\n").await,
        "test.alloy:1:1: Failed to evaluate node for config block: decoding configuration: send_traceparent is not \
         implemented"
    );
    assert_eq!(refused("labelstore {\n\tx = 1\n}\n").await, "test.alloy:2:2: unrecognized attribute name \"x\"");
    assert_eq!(
        refused("labelstore { }\nlabelstore { }\n").await,
        "test.alloy:2:1: duplicate definition of \"labelstore\""
    );
    assert_eq!(
        refused("labelstore \"x\" { }\n").await,
        "test.alloy:1:1: cannot find the definition of component name \"labelstore\""
    );
}

#[tokio::test]
async fn a_component_that_panics_when_it_is_put_in_place_or_ends_is_the_only_one_that_suffers() {
    let pipeline = started(
        "test.value \"a\" {\n\tinput = \"1\"\n\tkey = \"commit_panics\"\n}\n\
         test.value \"b\" {\n\tinput = test.value.a.output\n}\n\
         test.value \"c\" {\n\tinput = test.value.b.output\n}\n\
         test.value \"d\" {\n\tinput = \"panic in commit\"\n}\n\
         test.value \"e\" {\n\tinput = \"panic in drain\"\n}\n",
    )
    .await;
    let broken = "component evaluation failed: panicked: asked for it";
    assert_eq!(pipeline.health("test.value.d").message, broken);
    poke("commit_panics", "panic in commit");
    until("b has failed", || pipeline.health("test.value.b").message == broken).await;
    poke("commit_panics", "2");
    until("b is evaluated again", || pipeline.health("test.value.b").state == HealthState::Healthy).await;
    until("c has got it", || pipeline.exported("test.value.c", "output") == "\"2\"").await;
    let host = Arc::clone(&pipeline.controller.component("test.value.e").unwrap().host);
    pipeline.shutdown().await;
    assert_eq!(host.health.current().message, "component shut down with error: panicked: asked for it");
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
