//! Why entries go nowhere, and how that is counted.

use std::borrow::Cow;

use corten_signal::ledger::{Pass, Row};
use corten_signal::relabel::Rules;

/// Why an entry goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The rule at this place drops it.
    Rule(usize),
    /// This.
    Is(&'static str),
}

impl Why {
    /// No label is left that anybody is to see.
    pub(crate) const NO_LABELS: Why = Why::Is("no labels");
    /// The labels are too long, or one stands twice.
    pub(crate) const INVALID_LABELS: Why = Why::Is("invalid labels");
    /// It cannot be read.
    pub(crate) const PARSE_ERROR: Why = Why::Is("parse error");

    /// How it is counted.
    pub(crate) fn reason(self, rules: &Rules) -> Cow<'static, str> {
        match self {
            Why::Rule(place) => rules.reason(place).into(),
            Why::Is(reason) => reason.into(),
        }
    }
}

/// What is dropped of some entries, until it is counted: once for many of them, as a batch is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Drops(Vec<(Why, usize)>);

impl Drops {
    pub(crate) fn add(&mut self, why: Why, entries: usize) {
        match self.0.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count += entries,
            None => self.0.push((why, entries)),
        }
    }

    /// Counts what was dropped of what came from outside.
    pub(crate) fn count(&mut self, row: &Row, rules: &Rules) {
        for (why, entries) in self.0.drain(..) {
            row.received(entries);
            row.dropped(why.reason(rules), entries);
        }
    }

    /// Counts what is dropped of a batch, if that is taken.
    pub(crate) fn count_in(self, pass: &mut Pass<'_>, rules: &Rules) {
        for (why, entries) in self.0 {
            pass.dropped(why.reason(rules), entries);
        }
    }
}
