//! What decoding needs from its caller, and what it gives back.

use std::fmt;

use corten_syntax::{Diagnostic, Diagnostics};

use crate::encode::Sensitive;
use crate::eval::Scope;
use crate::schema::Stability;

/// What decoding needs.
#[derive(Clone, Copy)]
pub struct DecodeContext<'a> {
    /// What the names in expressions stand for. In a static check some of it is [unknown](crate::unknown).
    pub scope: &'a dyn Scope,
    /// What lies below may not be written.
    pub minimum: Stability,
}

/// What was decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded<T> {
    /// The arguments.
    pub value: T,
    /// Which of them were made from secrets, for whoever shows them.
    pub sensitive: Sensitive,
    /// What the user wrote although it is deprecated, one text for each: for the log.
    pub deprecated: Vec<String>,
}

/// One thing that is wrong with a body.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What is wrong, with the best place that is known.
    pub diagnostic: Diagnostic,
    /// Whether the place is the reference's as well. For a missing attribute, a missing block and a broken rule it gives
    /// the text alone, and the caller says whose it is, at the place of the component's block:
    /// `Failed to build component: decoding configuration: missing required attribute "url"`.
    pub positioned: bool,
    /// Whether it is only the building of the component that the reference sees fail.
    pub building: bool,
}

/// All that is wrong with a body, in the order in which it was found. Never empty.
#[derive(Clone, Debug)]
pub struct DecodeErrors(pub(super) Vec<Problem>);

impl DecodeErrors {
    /// Each of them.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    /// The diagnostics, each at the best place that is known.
    pub fn into_diagnostics(self) -> Diagnostics {
        self.0.into_iter().map(|problem| problem.diagnostic).collect()
    }
}

impl fmt::Display for DecodeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.clone().into_diagnostics().fmt(f)
    }
}

impl std::error::Error for DecodeErrors {}
