//! `corten fmt`.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use corten_runtime::source::io_error_text;
use corten_syntax::{Diagnostics, SOURCE_BYTES_MAX};

use crate::output;

/// What to do with the formatted text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mode {
    /// Put it in place of the file.
    pub(crate) write: bool,
    /// Only say whether it differs.
    pub(crate) test: bool,
}

/// The name of standard input in messages.
const STANDARD_INPUT: &str = "<stdin>";

pub(crate) fn main(path: Option<&str>, mode: Mode) -> Result<(), String> {
    if mode.write && mode.test {
        return Err("cannot use -w/--write and -t/--test at the same time".to_owned());
    }
    let Some(path) = path.filter(|path| *path != "-") else {
        if mode.write {
            return Err("cannot use -w with standard input".to_owned());
        }
        let input = std::io::stdin();
        if path.is_none() && input.is_terminal() {
            return Err("no file given, and standard input is a terminal".to_owned());
        }
        let mut bytes = Vec::new();
        // One byte more than a text may have tells that it is too long.
        let read = input.lock().take(SOURCE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| format!("reading {STANDARD_INPUT}: {}", io_error_text(&error)))?;
        return format(STANDARD_INPUT, &bytes, mode, None);
    };
    let file = Path::new(path);
    let about = std::fs::metadata(file).map_err(|error| format!("stat {path}: {}", io_error_text(&error)))?;
    if about.is_dir() {
        return Err("cannot format a directory".to_owned());
    }
    let bytes = std::fs::read(file).map_err(|error| format!("open {path}: {}", io_error_text(&error)))?;
    format(path, &bytes, mode, Some(file))
}

fn format(name: &str, bytes: &[u8], mode: Mode, file: Option<&Path>) -> Result<(), String> {
    let text = corten_syntax::decode(name, bytes).map_err(|errors| report(&errors))?;
    let formatted = corten_syntax::format(name, text).map_err(|errors| report(&errors))?;
    if mode.test {
        return match formatted.as_bytes() == bytes {
            true => Ok(()),
            false => Err(format!("file {name} is not formatted correctly")),
        };
    }
    match file.filter(|_| mode.write) {
        // Written in place, so that the file keeps its mode, its owner and the links to it.
        Some(file) if formatted.as_bytes() != bytes => {
            std::fs::write(file, formatted).map_err(|error| format!("open {name}: {}", io_error_text(&error)))
        }
        Some(_) => Ok(()),
        None => {
            output::print(&formatted);
            Ok(())
        }
    }
}

fn report(errors: &Diagnostics) -> String {
    for diagnostic in errors {
        output::error(&format!("{diagnostic}\n"));
    }
    "encountered errors during formatting".to_owned()
}
