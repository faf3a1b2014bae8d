//! What goes to the terminal.

use std::io::{IsTerminal as _, Write as _};

/// Writes to standard output. Nobody is told when it is gone: whoever closed a pipe has read enough.
pub(crate) fn print(text: &str) {
    let _ = printed(text);
}

/// As [`print`]. Whether somebody is still there to read it.
pub(crate) fn printed(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Writes to standard error.
pub(crate) fn error(text: &str) {
    // There is no other place to tell of a failure.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Whether diagnostics are coloured: on a terminal that shows colours, unless the user does not want any. As in the
/// reference standard output decides, although diagnostics go to standard error.
pub(crate) fn colour() -> bool {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let able = std::env::var_os("TERM").is_none_or(|value| value != "dumb");
    wanted && able && std::io::stdout().is_terminal()
}
