//! `discovery.relabel`: targets with other labels.

use std::sync::Arc;

use corten_component::targets::{DroppedBy, ShownTarget, TargetState, TargetView};
use corten_component::{Component, Context, DebugInfo, Error};
use corten_config::encode::Item;
use corten_config::{Arguments, Exports};
use corten_signal::Kind;
use corten_signal::relabel::{NameScheme, RelabelRules, RelabelScratch, Rule, Rules};
use corten_signal::target::{Target, TargetBuilder};
use parking_lot::Mutex;

/// Rewrites the labels of targets, and drops targets, by rules.
///
/// The rules are applied to each target in their order. Labels that begin with `__` stay on the output; what scrapes the
/// targets takes them off. A label that is set to nothing is removed.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// The targets to relabel.
    targets: Vec<Target>,
    /// The rules, in the order in which they are applied.
    #[block(name = "rule")]
    rules: Vec<Rule>,
}

/// What `discovery.relabel` exports.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Offer {
    /// The targets that were kept, in their order, with their new labels.
    output: Vec<Target>,
    /// The rules, for other components to apply.
    rules: RelabelRules,
}

/// The component. It does all its work when it is evaluated.
#[derive(Debug)]
pub struct Relabel {
    compiled: Arc<Compiled>,
    shown: Arc<Shown>,
}

/// What was dropped of the targets that came last.
#[derive(Debug, Default)]
struct Shown(Mutex<Vec<Arc<Dropped>>>);

/// A target that a rule dropped.
#[derive(Debug)]
struct Dropped {
    target: Target,
    rule: usize,
    compiled: Arc<Compiled>,
}

impl ShownTarget for Dropped {
    fn state(&self) -> TargetState {
        TargetState::Dropped
    }

    fn url(&self) -> &str {
        ""
    }

    fn discovered(&self) -> &Target {
        &self.target
    }

    fn labels(&self) -> Option<&Target> {
        None
    }

    fn dropped_by(&self) -> Option<DroppedBy> {
        let rule = self.compiled.exported.0.get(self.rule)?;
        Some(DroppedBy { index: self.rule, action: rule.action.to_string() })
    }
}

impl TargetView for Shown {
    fn targets(&self) -> Vec<Arc<dyn ShownTarget>> {
        self.0.lock().iter().map(|dropped| Arc::clone(dropped) as Arc<dyn ShownTarget>).collect()
    }
}

impl DebugInfo for Shown {
    fn debug_info(&self) -> Vec<Item> {
        Vec::new()
    }

    fn targets(&self) -> Option<&dyn TargetView> {
        Some(self)
    }
}

/// What was prepared: rules, and what they drop of so many targets.
#[derive(Debug)]
pub struct Prepared {
    compiled: Arc<Compiled>,
    targets: usize,
    /// Each with the number of the rule.
    dropped: Vec<(Target, usize)>,
}

/// Targets change often and rules seldom, so that rules are compiled once for all targets that come.
#[derive(Debug)]
pub struct Compiled {
    exported: RelabelRules,
    rules: Rules,
}

impl Component for Relabel {
    const NAME: &'static str = "discovery.relabel";
    type Arguments = Config;
    type Exports = Offer;
    type Prepared = Prepared;

    async fn prepare(config: Config, _: &Context<Self>, current: Option<&Self>) -> Result<(Prepared, Offer), Error> {
        let kept = current.filter(|current| *current.compiled.exported.0 == *config.rules);
        let compiled = match kept {
            Some(current) => Arc::clone(&current.compiled),
            None => {
                let rules = Rules::new(&config.rules, NameScheme::Utf8);
                let rules = rules.map_err(|(place, error)| format!("rule {}: {error}", place + 1))?;
                Arc::new(Compiled { exported: RelabelRules(config.rules.into()), rules })
            }
        };
        let (output, dropped) = relabel(&config.targets, &compiled.rules)?;
        let offer = Offer { output, rules: compiled.exported.clone() };
        Ok((Prepared { compiled, targets: config.targets.len(), dropped }, offer))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { compiled, targets, dropped } = prepared;
        let shown = current.map_or_else(
            || {
                let shown: Arc<Shown> = Arc::default();
                cx.show_debug_info(Arc::clone(&shown) as Arc<dyn DebugInfo>);
                shown
            },
            |current| current.shown,
        );
        // Targets are values: at each evaluation all come anew, and all that are kept go on.
        let row = cx.ledger().row(Kind::Target);
        row.received(targets);
        row.out(targets - dropped.len());
        let mut by_rule: Vec<usize> = Vec::new();
        for (_, rule) in &dropped {
            by_rule.resize(by_rule.len().max(rule + 1), 0);
            by_rule[*rule] += 1;
        }
        for (rule, targets) in by_rule.into_iter().enumerate().filter(|(_, targets)| *targets > 0) {
            row.dropped(compiled.rules.reason(rule), targets);
        }
        let of_rule = |(target, rule)| Arc::new(Dropped { target, rule, compiled: Arc::clone(&compiled) });
        *shown.0.lock() = dropped.into_iter().map(of_rule).collect();
        Relabel { compiled, shown }
    }
}

/// The targets that are kept, and those that are dropped with the number of the rule that does it.
type Relabelled = (Vec<Target>, Vec<(Target, usize)>);

fn relabel(targets: &[Target], rules: &Rules) -> Result<Relabelled, Error> {
    let (mut builder, mut scratch) = (TargetBuilder::new(), RelabelScratch::new());
    let (mut output, mut dropped) = (Vec::with_capacity(targets.len()), Vec::new());
    for target in targets {
        builder.start_from(target);
        match rules.apply_why(builder.labels_mut(), &mut scratch) {
            Ok(()) => output.push(builder.build().map_err(|error| Error::new(error.to_string()))?),
            Err(rule) => dropped.push((target.clone(), rule)),
        }
    }
    Ok((output, dropped))
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_config::Value;
    use corten_testkit::{Unit, World, host, labels, load};

    use super::*;

    const DEFINITION: Definition = Definition::of::<Relabel>();

    fn output(world: &World) -> Vec<String> {
        labels(&world.exports().last().unwrap().field("output").unwrap())
    }

    const TARGETS: &str = r#"targets = [
        { "__meta_foo" = "foo", "__address__" = "localhost", "instance" = "one", "app" = "backend" },
        { "__meta_bar" = "bar", "__address__" = "localhost", "instance" = "two", "app" = "database" },
        { "__meta_baz" = "baz", "__address__" = "localhost", "instance" = "three", "app" = "frontend" },
    ]"#;

    #[tokio::test]
    async fn rules_apply_in_order_and_targets_keep_theirs() {
        for (rules, expected) in [
            (
                r#"rule {
                    source_labels = ["__address__", "instance"]
                    separator     = "/"
                    target_label  = "destination"
                }
                rule {
                    source_labels = ["app"]
                    regex         = "(back|front)end"
                    action        = "keep"
                }
                rule {
                    target_label = "custom"
                    replacement  = "static"
                }"#,
                vec![
                    "__address__=localhost __meta_foo=foo app=backend custom=static destination=localhost/one instance=one",
                    "__address__=localhost __meta_baz=baz app=frontend custom=static destination=localhost/three \
                     instance=three",
                ],
            ),
            // Names that series cannot have are valid here.
            (
                "rule {\ntarget_label = \"a-b\"\nreplacement = \"1\"\n}\nrule {\naction = \"labelkeep\"\nregex = \"a-b\"\n}",
                vec!["a-b=1"; 3],
            ),
            ("rule {\naction = \"drop\"\n}", vec![]),
            // What is empty is absent: the label goes.
            (
                "rule {\ntarget_label = \"app\"\nreplacement = \"\"\n}\nrule {\naction = \"labelkeep\"\nregex = \"app\"\n}",
                vec![""; 3],
            ),
        ] {
            let unit = Unit::start(host("discovery.relabel.x"), &DEFINITION, &format!("{TARGETS}\n{rules}")).await;
            assert_eq!(output(&unit.unwrap().world), expected, "{rules}");
        }
    }

    #[tokio::test]
    async fn what_is_dropped_is_shown_with_its_rule() {
        let keep = "rule {\nsource_labels = [\"app\"]\nregex = \"(back|front)end\"\naction = \"keep\"\n}";
        let drop = "rule {\nsource_labels = [\"instance\"]\nregex = \"one\"\naction = \"drop\"\n}";
        let body = format!("{TARGETS}\nrule {{\ntarget_label = \"a\"\nreplacement = \"1\"\n}}\n{keep}\n{drop}");
        let mut unit = Unit::start(host("discovery.relabel.x"), &DEFINITION, &body).await.unwrap();
        let shown = |world: &World| {
            let info = world.host().debug_info.lock().clone().unwrap();
            let targets = info.targets().unwrap().targets();
            let shown = |target: &Arc<dyn ShownTarget>| {
                let DroppedBy { index, action } = target.dropped_by().unwrap();
                assert_eq!(
                    (target.state(), target.labels(), target.discovered().get("a")),
                    (TargetState::Dropped, None, None)
                );
                format!("{} {index} {action}", target.discovered().get("instance").unwrap())
            };
            targets.iter().map(shown).collect::<Vec<_>>()
        };
        assert_eq!(shown(&unit.world), ["one 2 drop", "two 1 keep"]);
        let books = |world: &World| world.balance_of(Kind::Target);
        assert_eq!(books(&unit.world), "received 3, out 1, dropped {rule 2 keep: 1, rule 3 drop: 1}");
        unit.update(&format!("{TARGETS}\n{drop}")).await.unwrap();
        assert_eq!(shown(&unit.world), ["one 0 drop"]);
        assert_eq!(books(&unit.world), "received 6, out 3, dropped {rule 1 drop: 1, rule 2 keep: 1, rule 3 drop: 1}");
    }

    #[tokio::test]
    async fn without_rules_targets_stay_as_they_are() {
        let text = r#"targets = [{ "b" = "2", "__meta_a" = "1" }, { "b" = "2", "__meta_a" = "1" }]"#;
        let unit = Unit::start(host("discovery.relabel.x"), &DEFINITION, text).await.unwrap();
        assert_eq!(output(&unit.world), ["__meta_a=1 b=2"; 2]);
    }

    #[tokio::test]
    async fn a_rule_that_is_wrong_is_refused() {
        for (rule, error) in [
            ("action = \"keepequal\"", "relabel configuration for keepequal action requires 'target_label' value"),
            ("action = \"Keep\"", "unrecognized action type \"Keep\""),
            ("regex = \"(\"\ntarget_label = \"a\"", "missing closing )"),
        ] {
            let text = format!("targets = []\nrule {{\n{rule}\n}}");
            let refused = Unit::start(host("discovery.relabel.x"), &DEFINITION, &text).await.unwrap_err();
            assert!(refused.contains(error), "{rule}: {refused}");
        }
    }

    #[tokio::test]
    async fn rules_are_a_value_for_others() {
        let unit =
            Unit::start(host("discovery.relabel.x"), &DEFINITION, "targets = []\nrule {\ntarget_label = \"a\"\n}");
        let world = unit.await.unwrap().world;
        let rules = world.exports()[0].field("rules").unwrap();
        let rules = rules.as_capsule().and_then(|rules| rules.as_any().downcast_ref::<RelabelRules>()).unwrap();
        assert_eq!(rules.0.len(), 1);
        assert_eq!(rules.0[0].target_label, "a");
    }

    #[tokio::test]
    async fn unchanged_rules_are_compiled_once() {
        let cx = host("discovery.relabel.x").context::<Relabel>();
        let rules = vec![Rule { target_label: "a".to_owned(), replacement: "1".to_owned(), ..Rule::default() }];
        let config =
            |target: &str| Config { targets: vec![Target::new([("t", target)]).unwrap()], rules: rules.clone() };
        let (first, _) = Relabel::prepare(config("1"), &cx, None).await.unwrap();
        let compiled = Arc::clone(&first.compiled);
        let component = Relabel::commit(None, first, &cx);
        let (second, offer) = Relabel::prepare(config("2"), &cx, Some(&component)).await.unwrap();
        assert!(Arc::ptr_eq(&compiled, &second.compiled));
        assert_eq!(offer.output, [Target::new([("a", "1"), ("t", "2")]).unwrap()]);
        let other = Config { rules: Vec::new(), ..config("1") };
        let (third, _) = Relabel::prepare(other, &cx, Some(&component)).await.unwrap();
        assert!(!Arc::ptr_eq(&compiled, &third.compiled));
    }

    #[tokio::test]
    async fn what_was_made_of_a_secret_stays_hidden() {
        let target = [(Arc::from("a"), Value::string("hunter2").marked(true))].into_iter().collect();
        let names = [("found", Value::array(vec![Value::object(target)]))];
        let text = "targets = found\nrule {\nsource_labels = [\"a\"]\ntarget_label = \"b\"\n}";
        let unit = Unit::start_with(host("discovery.relabel.x"), &DEFINITION, text, &names).await.unwrap();
        let shown = unit.world.exported("output");
        assert!(shown.contains("(secret)") && !shown.contains("hunter2"), "{shown}");
    }

    #[tokio::test]
    async fn the_output_is_there_when_the_load_is_done() {
        let text = format!(
            "discovery.relabel \"a\" {{\n{TARGETS}\n}}\ndiscovery.relabel \"b\" {{\ntargets = discovery.relabel.a.output\n\
             rule {{\naction = \"keep\"\nsource_labels = [\"instance\"]\nregex = \"two\"\n}}\n}}"
        );
        let pipeline = load(&text, &[crate::COMPONENTS]).await.unwrap();
        let output = labels(&pipeline.exports("discovery.relabel.b").field("output").unwrap());
        assert_eq!(output, ["__address__=localhost __meta_bar=bar app=database instance=two"]);
        pipeline.shutdown().await;
    }
}
