//! What the sources of logs share: from the labels that an entry comes with to its stream.

pub mod api;
pub mod awsfirehose;
mod bind;
mod cursors;
pub mod docker;
mod feed;
pub mod file;
pub mod gelf;
pub mod grpc;
pub mod heroku;
mod http;
pub mod journal;
mod outlet;
mod shown;
pub mod syslog;
#[cfg(test)]
mod testing;

use corten_signal::logs::{StreamCache, TENANT_LABEL};
use corten_signal::relabel::{NameScheme, RelabelRules, RelabelScratch, Rules};
use corten_signal::{LabelError, LabelsBuilder, Stream};
use parking_lot::Mutex;

use corten_component::Error;

use crate::dropped::Why;

/// What becomes of an entry whose labels the rules drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDrop {
    /// It is dropped, and so is one that no label is left of.
    DropEntry,
    /// It goes on with the labels that are set after the rules, and no others.
    NoLabels,
    /// It goes on with the labels as they were when the rules dropped it.
    GoOn,
}

/// Rewrites the labels of entries with a source's rules, and takes away those that nobody outside is to see.
pub(crate) struct SourceLabels {
    rules: Rules,
    on_drop: OnDrop,
    keeps_tenant: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cache: StreamCache<Result<Stream, Why>>,
    key: Vec<u8>,
    scratch: RelabelScratch,
}

impl SourceLabels {
    /// The rules of a component's `relabel_rules`. With `keeps_tenant` the tenant's label stays though its name is an
    /// internal one.
    ///
    /// # Errors
    ///
    /// A rule that is not valid.
    pub(crate) fn new(rules: &RelabelRules, on_drop: OnDrop, keeps_tenant: bool) -> Result<Self, Error> {
        let rules = Rules::new(&rules.0, NameScheme::Legacy)
            .map_err(|(place, error)| Error::new(format!("relabel_rules: rule {}: {error}", place + 1)))?;
        Ok(SourceLabels { rules, on_drop, keeps_tenant, state: Mutex::default() })
    }

    /// The rules.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The stream of an entry with these labels, or why it is to be dropped. Labels of `after` are set when the
    /// rules were applied and the internal labels are gone, whatever their names are. The builder is used up.
    ///
    /// # Errors
    ///
    /// A set of labels that is too long, and a label that stands twice.
    pub(crate) fn stream(
        &self,
        labels: &mut LabelsBuilder,
        after: &[(&str, &str)],
    ) -> Result<Result<Stream, Why>, LabelError> {
        let mut state = self.state.lock();
        let State { cache, key, scratch } = &mut *state;
        key.clear();
        labels.encode_all_into(key)?;
        for (name, value) in after {
            for text in [name, value] {
                key.extend_from_slice(&(text.len() as u64).to_le_bytes());
                key.extend_from_slice(text.as_bytes());
            }
        }
        cache.get_or_make(key, || self.make(labels, scratch, after))
    }

    fn make(
        &self,
        labels: &mut LabelsBuilder,
        scratch: &mut RelabelScratch,
        after: &[(&str, &str)],
    ) -> Result<Result<Stream, Why>, LabelError> {
        let applied = self.rules.apply_why(labels, scratch);
        let is_public = |name: &str| !name.starts_with("__") || (self.keeps_tenant && name == TENANT_LABEL);
        match (self.on_drop, applied) {
            (OnDrop::DropEntry, Err(place)) => return Ok(Err(Why::Rule(place))),
            (OnDrop::NoLabels, Err(_)) => labels.clear(),
            _ => labels.retain(|name, value| is_public(name) && !value.is_empty()),
        }
        if labels.is_empty() && self.on_drop == OnDrop::DropEntry {
            return Ok(Err(Why::NO_LABELS));
        }
        for (name, value) in after {
            labels.remove(name);
            labels.push(name, value);
        }
        Stream::new(labels).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use corten_signal::relabel::{Action, Rule};

    use super::*;

    fn rule(action: Action, source: &str, regex: &str, target: &str) -> Rule {
        Rule {
            source_labels: vec![source.to_owned()],
            separator: ";".to_owned(),
            regex: regex.into(),
            modulus: 0,
            target_label: target.to_owned(),
            replacement: "$1".to_owned(),
            action,
        }
    }

    #[test]
    fn each_source_has_its_own_answer_to_dropped_labels() {
        let rules = RelabelRules(
            [rule(Action::Replace, "__host", "(.*)", "host"), rule(Action::Drop, "level", "debug", "")].into(),
        );
        type Case<'a> = (OnDrop, bool, &'a [(&'a str, &'a str)], Result<&'a str, &'a str>);
        let cases: &[Case<'_>] = &[
            (OnDrop::DropEntry, false, &[("__host", "a"), ("level", "info")], Ok(r#"{host="a", level="info"}"#)),
            (OnDrop::DropEntry, false, &[("__host", "a"), ("level", "debug")], Err("rule 2 drop")),
            (OnDrop::DropEntry, false, &[("__other", "a")], Err("no labels")),
            (OnDrop::NoLabels, false, &[("__host", "a"), ("level", "debug")], Ok("{}")),
            (OnDrop::GoOn, false, &[("__host", "a"), ("level", "debug")], Ok(r#"{host="a", level="debug"}"#)),
            (OnDrop::NoLabels, true, &[("__tenant_id__", "t")], Ok(r#"{__tenant_id__="t"}"#)),
            (OnDrop::NoLabels, false, &[("__tenant_id__", "t"), ("empty", "")], Ok("{}")),
        ];
        for (on_drop, keeps_tenant, labels, expected) in cases {
            let source = SourceLabels::new(&rules, *on_drop, *keeps_tenant).unwrap();
            // The second time the answer is remembered.
            for _ in 0..2 {
                let mut builder = LabelsBuilder::new();
                labels.iter().for_each(|(name, value)| builder.push(name, value));
                let stream = source.stream(&mut builder, &[]).unwrap();
                let stream = stream.map(|stream| stream.canonical()).map_err(|why| why.reason(&source.rules));
                assert_eq!(stream.as_deref().map_err(|why| &**why), *expected, "{labels:?}");
            }
        }
    }

    #[test]
    fn labels_that_are_set_after_the_rules_may_be_internal_and_are_part_of_what_is_remembered() {
        let source = SourceLabels::new(&RelabelRules([].into()), OnDrop::DropEntry, false).unwrap();
        for tenant in ["t1", "t2"] {
            let mut builder = LabelsBuilder::new();
            builder.push("a", "b");
            let stream = source.stream(&mut builder, &[(TENANT_LABEL, tenant)]).unwrap().unwrap();
            assert_eq!(stream.tenant().map(|tenant| &**tenant), Some(tenant));
        }
        // Labels alone that come after the rules do not keep an entry.
        assert_eq!(source.stream(&mut LabelsBuilder::new(), &[(TENANT_LABEL, "t")]), Ok(Err(Why::NO_LABELS)));
    }
}
