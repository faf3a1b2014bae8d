//! The one error of the harness: a text that says what was tried.

use std::fmt;

/// A failure, already worded for the person at the terminal.
#[derive(Debug)]
pub(crate) struct Error(String);

/// The result of every fallible function of the harness.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Makes an error of a text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Puts what was tried in front of the cause.
pub(crate) trait Context<T> {
    /// Wraps the error, if there is one, as `<what>: <cause>`.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| Error(format!("{what}: {cause}")))
    }
}
