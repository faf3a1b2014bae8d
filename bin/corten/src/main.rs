//! The command line.

mod cli;
mod eval;
mod families;
mod fmt;
mod gql;
mod output;
mod plan;
mod remote;
mod run;
mod schema;
mod seed;
mod storage;
mod tap;
mod validate;
mod version;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::main(std::env::args_os()) {
        Ok(status) => status,
        Err(message) => {
            output::error(&format!("Error: {message}\n"));
            ExitCode::FAILURE
        }
    }
}
