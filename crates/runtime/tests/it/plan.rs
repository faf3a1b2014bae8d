//! What a load is told to do before it does it, and what is remembered of it.

use std::collections::BTreeSet;

use corten_runtime::{LoadedBy, PlannedChange, ReloadPlan, source};
use corten_testkit::components::COMPONENTS;
use corten_testkit::{Pipeline, load};

use crate::components::{FAMILY, let_go, poke, trace};

async fn started(text: &str) -> Pipeline {
    load(text, &[FAMILY, COMPONENTS]).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn planned(pipeline: &Pipeline, text: &str) -> ReloadPlan {
    let source = source::from_texts(&[("test.alloy".to_owned(), text.to_owned())]).unwrap();
    pipeline.controller.plan_source(&source).await
}

fn ids(changes: &[PlannedChange]) -> BTreeSet<String> {
    changes.iter().map(|change| change.id.clone()).collect()
}

/// A configuration of components that count how often they are put in place: label, and the expression of the input.
fn config(case: usize, components: &[(&str, &str)]) -> String {
    let block = |(label, input): &(&str, &str)| {
        format!("test.value \"{label}\" {{\n\tinput = {input}\n\tkey   = \"plan_{case}_{label}\"\n}}\n")
    };
    components.iter().map(block).collect()
}

#[tokio::test]
async fn a_plan_is_what_a_load_then_does() {
    type Components = &'static [(&'static str, &'static str)];
    const A: &str = "test.value.a.output";
    const B: &str = "test.value.b.output";
    let cases: &[(Components, Components)] = &[
        (&[], &[]),
        (&[], &[("a", "\"1\"")]),
        (&[("a", "\"1\"")], &[]),
        (&[("a", "\"1\"")], &[("a", "\"1\"")]),
        (&[("a", "\"1\"")], &[("a", "\"2\"")]),
        (&[("a", "\"1\"")], &[("a", "\"\" + \"1\"")]),
        (&[("a", "\"1\"")], &[("b", "\"1\"")]),
        (&[("a", "\"1\"")], &[("a", "\"1\""), ("b", "\"1\"")]),
        (&[("a", "\"1\"")], &[("a", "\"1\""), ("b", A)]),
        (&[("a", "\"1\""), ("b", A)], &[("a", "\"1\""), ("b", A)]),
        (&[("a", "\"1\""), ("b", A)], &[("a", "\"1\""), ("b", "\"1\"")]),
        (&[("a", "\"1\""), ("b", A)], &[("a", "\"1\""), ("b", "\"2\"")]),
        (&[("a", "\"1\""), ("b", "\"2\"")], &[("a", "\"2\""), ("b", "\"1\"")]),
        (&[("a", "\"1\""), ("b", "\"2\""), ("c", A)], &[("a", "\"1\""), ("b", "\"2\""), ("c", B)]),
        (&[("a", "\"1\""), ("b", "\"1\""), ("c", A)], &[("a", "\"1\""), ("b", "\"1\""), ("c", B)]),
        (&[("a", "\"1\""), ("b", A)], &[("b", "\"1\"")]),
        (&[("b", "\"1\"")], &[("a", "\"2\""), ("b", A)]),
        (&[("a", "\"1\""), ("b", A), ("c", B)], &[("b", "\"1\""), ("c", B)]),
        (&[("c", "\"1\""), ("b", "\"2\"")], &[("b", "\"2\""), ("c", "\"1\"")]),
        (&[("a", "\"1\""), ("b", "\"3\"")], &[("a", "\"4\""), ("c", "\"3\"")]),
    ];
    for (case, (before, after)) in cases.iter().enumerate() {
        let pipeline = started(&config(case, before)).await;
        let commits = |label: &str| {
            trace(&format!("plan_{case}_{label}")).iter().filter(|what| what.starts_with("commit")).count()
        };
        let counts = |components: Components| components.iter().map(|(label, _)| commits(label)).collect::<Vec<_>>();
        let (old, new) = (counts(before), counts(after));
        let after_text = config(case, after);
        let plan = planned(&pipeline, &after_text).await;
        assert_eq!((counts(before), counts(after)), (old, new.clone()), "case {case}: a plan does nothing");
        assert!(plan.affected.is_empty(), "case {case}: {:?}", plan.affected);
        pipeline.reload(&after_text).await.unwrap();
        let id = |label: &str| format!("test.value.{label}");
        let was = |label: &str| before.iter().any(|(other, _)| *other == label);
        let is = |label: &str| after.iter().any(|(other, _)| *other == label);
        let done: BTreeSet<&str> = after
            .iter()
            .zip(&new)
            .filter(|((label, _), had)| commits(label) > **had)
            .map(|((label, _), _)| *label)
            .collect();
        let expected = |wanted: &dyn Fn(&str) -> bool| -> BTreeSet<String> {
            after.iter().filter(|(label, _)| wanted(label)).map(|(label, _)| id(label)).collect()
        };
        assert_eq!(ids(&plan.created), expected(&|label| !was(label)), "case {case}");
        assert_eq!(ids(&plan.updated), expected(&|label| was(label) && done.contains(label)), "case {case}");
        let removed: BTreeSet<String> =
            before.iter().filter(|(label, _)| !is(label)).map(|(label, _)| id(label)).collect();
        assert_eq!(ids(&plan.removed), removed, "case {case}");
        assert_eq!(plan.untouched, after.len() - plan.created.len() - plan.updated.len(), "case {case}");
        assert_eq!(plan.changes_anything(), !(done.is_empty() && removed.is_empty()), "case {case}");
        pipeline.shutdown().await;
    }
}

#[tokio::test]
async fn what_refers_to_a_change_may_change_and_receivers_stay_who_they_are() {
    let text = |place: &str| {
        format!(
            "test.sink \"s\" {{\n\tplace    = {place}\n\tpassword = \"hush-hush\"\n}}\n\
             test.source \"receiver\" {{\n\tforward_to = [test.sink.s.receiver]\n}}\n\
             test.value \"place\" {{\n\tinput = test.sink.s.place\n}}\n\
             test.value \"then\" {{\n\tinput = test.value.place.output\n}}\n"
        )
    };
    let pipeline = started(&text("\"one\"")).await;
    let plan = planned(&pipeline, &text("\"two\"")).await;
    assert_eq!(ids(&plan.updated), BTreeSet::from(["test.sink.s".to_owned()]));
    let affected: Vec<(&str, &str)> = plan.affected.iter().map(|change| (&*change.id, &*change.why)).collect();
    assert_eq!(
        affected,
        [
            ("test.value.place", "refers to test.sink.s, which may export something else then"),
            ("test.value.then", "refers to test.value.place, which may export something else then"),
        ]
    );
    assert_eq!((plan.untouched, plan.is_refused()), (1, false));
    let change = &plan.updated[0];
    assert_eq!((change.file.as_str(), change.line), ("test.alloy", 1));
    let [place] = &change.arguments[..] else { panic!("{change:?}") };
    assert_eq!((&*place.name, &*place.before, &*place.after), ("place", "\"one\"", "\"two\""));
    // A secret that changes is told of and not shown.
    let plan = planned(&pipeline, &text("\"one\"").replace("hush-hush", "hush-again")).await;
    let [password] = &plan.updated[0].arguments[..] else { panic!("{plan:?}") };
    assert_eq!((&*password.before, &*password.after), ("\"(secret)\"", "\"(secret)\""));
    assert!(!format!("{plan:?}").contains("hush"), "{plan:?}");
    pipeline.shutdown().await;
}

#[tokio::test]
async fn a_plan_says_what_a_load_would_refuse() {
    let pipeline = started("test.value \"a\" {\n\tinput = \"1\"\n}\n").await;
    for (text, error) in [
        ("test.value \"a\" {\n\tinput = [1]\n}\n", "test.alloy:2:10: [1] should be string, got array"),
        ("test.value \"b\" {\n\tinput = [1]\n}\n", "test.alloy:2:10: expected string, got array"),
        (
            "test.value \"b\" {\n\tinput = test.value.c.output\n}\n",
            "test.alloy:2:10: component \"test.value.c.output\" does not exist or is out of scope",
        ),
        ("nonsense \"b\" { }\n", "test.alloy:1:1: cannot find the definition of component name \"nonsense\""),
    ] {
        let plan = planned(&pipeline, text).await;
        let texts: Vec<String> = plan.diagnostics.iter().map(ToString::to_string).collect();
        assert!(plan.is_refused(), "{text}");
        assert_eq!(texts, [error], "{text}");
        assert!(plan.created.is_empty() && plan.updated.is_empty(), "{text}");
    }
}

#[tokio::test]
async fn a_value_that_changed_behind_the_same_text_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.alloy");
    std::fs::write(&path, "test.value \"a\" {\n\tinput = \"1\"\n\tkey = \"behind\"\n}\ntest.value \"b\" {\n\tinput = test.value.a.output\n}\n")
        .unwrap();
    let pipeline = started("").await;
    let controller = &pipeline.controller;
    let mut last = controller.last_load();
    assert!(last.borrow_and_update().is_none());
    controller.load(&path).await.unwrap();
    let generation = controller.generation().borrow().0;
    poke("behind", "2");
    corten_testkit::until("b has it", || pipeline.exported("test.value.b", "output") == "\"2\"").await;
    let plan = controller.plan_reload(&path).await.unwrap();
    assert!(!plan.changed && !plan.changes_anything(), "{plan:?}");
    assert!(last.has_changed().unwrap());
    assert!(last.borrow_and_update().as_ref().is_some_and(|load| load.error.is_none() && load.by == LoadedBy::Start));
    // A load that is refused is remembered with its texts.
    std::fs::write(&path, "// password = \"hush\"\ntest.value \"a\" {\n").unwrap();
    let refused = controller.load_for(&path, LoadedBy::Request).await;
    assert!(refused.is_err());
    let load = last.borrow_and_update().clone().unwrap();
    assert_eq!((load.by, load.diagnostics.len()), (LoadedBy::Request, 1));
    assert!(load.error.as_ref().is_some_and(|error| error.contains("expected }, got EOF")), "{load:?}");
    let files = controller.shown_refused(&load);
    assert_eq!(files, [(path.display().to_string(), "// password = \"(secret)\"\ntest.value \"a\" {\n".to_owned())]);
    assert_eq!(controller.generation().borrow().0, generation, "what ran runs on");
    let plan = controller.plan_reload(&path).await.unwrap();
    assert!(plan.changed && plan.is_refused(), "{plan:?}");
}

#[tokio::test]
async fn a_load_that_waits_for_another_reads_the_files_when_it_is_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.alloy");
    let write = |input: &str| {
        let text = format!("test.value \"a\" {{\n\tinput = \"{input}\"\n\tkey = \"turns\"\n}}\n");
        std::fs::write(&path, text).unwrap();
    };
    let pipeline = started("").await;
    let controller = &pipeline.controller;
    write("wait");
    let second = async {
        corten_testkit::until("the first one is under way", || trace("turns") == ["waits"]).await;
        write("old");
        let load = controller.load_for(&path, LoadedBy::Request);
        let change = async {
            // Time enough to read it too early.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            write("new");
            let_go();
        };
        tokio::join!(load, change).0
    };
    let (first, second) = tokio::join!(controller.load(&path), second);
    first.unwrap();
    second.unwrap();
    assert_eq!(pipeline.exported("test.value.a", "output"), "\"new\"");
}

#[cfg(unix)]
#[tokio::test]
async fn a_load_whose_files_take_their_time_holds_up_nothing_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.alloy");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    // Reading ends when this does.
    let writer = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let pipeline = started(&config(900, &[("a", "\"1\""), ("b", "test.value.a.output")])).await;
    let controller = &pipeline.controller;
    let rest = async {
        poke("plan_900_a", "\"2\"");
        corten_testkit::until("what changed is handed on", || {
            pipeline.exported("test.value.b", "output").contains('2')
        })
        .await;
        planned(&pipeline, "").await;
        controller.shutdown().await;
        drop(writer);
    };
    tokio::join!(controller.load_for(&path, LoadedBy::Request), rest).0.unwrap();
}

#[tokio::test]
async fn the_secrets_of_texts_that_do_not_run_are_masked_in_what_is_said_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.alloy");
    std::fs::write(&path, "test.sink \"s\" {\n\tpassword = \"old-secret\"\n}\n").unwrap();
    let pipeline = started("").await;
    let controller = &pipeline.controller;
    controller.load(&path).await.unwrap();
    // Of a type that a secret cannot have: the message quotes it.
    std::fs::write(&path, "test.sink \"s\" {\n\tpassword = [\"new-secret\"]\n}\n").unwrap();
    let refused = controller.load_for(&path, LoadedBy::Request).await.unwrap_err();
    let load = controller.last_load().borrow().clone().unwrap();
    let plan = controller.plan_reload(&path).await.unwrap();
    assert!(plan.is_refused());
    for said in [
        refused.describe(&path),
        load.error.clone().unwrap(),
        format!("{:?}", load.diagnostics.iter().map(|found| &found.message).collect::<Vec<_>>()),
        format!("{:?}", plan.diagnostics.iter().map(|found| &found.message).collect::<Vec<_>>()),
        format!("{:?}{:?}", plan.files, controller.shown_refused(&load)),
    ] {
        assert!(said.contains("(secret)") && !said.contains("new-secret"), "{said}");
    }
    // What is secret in one place of the new texts is masked in all.
    let text = "test.sink \"s\" {\n\tpassword = \"new-secret\"\n}\ntest.value \"v\" {\n\tinput = \"new-secret\"\n}\n";
    std::fs::write(&path, text).unwrap();
    let plan = controller.plan_reload(&path).await.unwrap();
    assert_eq!((plan.created.len(), plan.updated.len()), (1, 1), "{plan:?}");
    let shown = format!("{:?}{:?}{:?}", plan.created, plan.updated, plan.files);
    assert!(!shown.contains("new-secret") && !shown.contains("old-secret"), "{shown}");
}

#[tokio::test]
async fn the_secrets_that_run_are_masked_in_what_is_shown() {
    let pipeline = started("test.sink \"s\" {\n\tpassword = \"hush-hush\"\n}\n").await;
    let controller = &pipeline.controller;
    assert_eq!(controller.secrets().masked("it said hush-hush"), "it said (secret)");
    let node = controller.component("test.sink.s").unwrap();
    assert_eq!(controller.shown_block(&node), "test.sink \"s\" {\n\tpassword = \"(secret)\"\n}");
    pipeline.reload("test.sink \"s\" {\n\tpassword = \"other-one\"\n}\n").await.unwrap();
    // What was sent before may still be answered, and what is gone may still send.
    assert_eq!(controller.secrets().masked("hush-hush other-one"), "(secret) (secret)");
    pipeline.reload("test.sink \"s\" {\n\tpassword = \"third-one\"\n}\n").await.unwrap();
    assert_eq!(controller.secrets().masked("hush-hush other-one third-one"), "hush-hush (secret) (secret)");
}

#[tokio::test]
async fn data_goes_where_receivers_and_targets_are() {
    let pipeline = started(
        "test.sink \"s\" { }\ntest.source \"a\" {\n\tforward_to = [test.sink.s.receiver]\n\tname = test.sink.s.place\n}\n",
    )
    .await;
    let flow = pipeline.controller.component("test.source.a").unwrap().data_flow();
    let flow: Vec<(&str, &str)> = flow.iter().map(|(to, kind)| (&**to, *kind)).collect();
    assert_eq!(flow, [("test.sink.s", "prometheus_metric")]);
    assert!(pipeline.controller.component("test.sink.s").unwrap().data_flow().is_empty());
}
