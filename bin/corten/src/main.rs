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
mod validate;
mod version;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::main(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            output::error(&format!("Error: {message}\n"));
            ExitCode::FAILURE
        }
    }
}
