//! The command line.

mod cli;
mod eval;
mod families;
mod fmt;
mod output;
mod run;
mod schema;
mod seed;
mod storage;
mod thin;
mod validate;
mod version;

use std::process::ExitCode;

fn main() -> ExitCode {
    // It measures the data path and is no command of the user's.
    if std::env::args().nth(1).is_some_and(|argument| argument == "thin") {
        thin::main();
        return ExitCode::SUCCESS;
    }
    match cli::main(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            output::error(&format!("Error: {message}\n"));
            ExitCode::FAILURE
        }
    }
}
