//! `cargo xtask ui`: builds the web interface from `ui/` into `ui/dist`, which is committed, so that cargo alone builds
//! the program.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// A step: its name, and the arguments of npm.
const STEPS: &[(&str, &[&str])] = &[
    ("types", &["run", "--silent", "typecheck"]),
    ("tests", &["run", "--silent", "test"]),
    ("build", &["run", "--silent", "build"]),
];

/// What a change has to pass: all steps but the one that writes the bundle, which a test compares with the sources.
const CHECKS: usize = 2;

/// Installs what the lock file names, checks the types, runs the tests and builds.
///
/// # Errors
///
/// A text for the person at the terminal, when npm is not there or a step fails.
pub fn build(ui: &Path, say: fn(String)) -> Result<(), String> {
    packages(ui, say)?;
    run(ui, STEPS, say)
}

/// Installs what the lock file names.
///
/// # Errors
///
/// When npm is not there, or cannot have a package.
pub fn packages(ui: &Path, say: fn(String)) -> Result<(), String> {
    say("== packages: npm ci".to_owned());
    // What was fetched once is not fetched again, and works without a network.
    npm(ui, &["ci", "--offline", "--silent"], Stdio::null()).or_else(|_| npm(ui, &["ci"], Stdio::inherit()))
}

/// Checks the types and runs the tests, once the packages are there.
///
/// # Errors
///
/// The step that fails.
pub fn check(ui: &Path, say: fn(String)) -> Result<(), String> {
    run(ui, &STEPS[..CHECKS], say)
}

fn run(ui: &Path, steps: &[(&str, &[&str])], say: fn(String)) -> Result<(), String> {
    for (name, arguments) in steps {
        say(format!("== {name}: npm {}", arguments.join(" ")));
        npm(ui, arguments, Stdio::inherit())?;
    }
    Ok(())
}

fn npm(ui: &Path, arguments: &[&str], stderr: Stdio) -> Result<(), String> {
    let program = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let mut command = Command::new(program);
    command.current_dir(ui).args(arguments).stderr(stderr).stdin(Stdio::null());
    let status = command.status().map_err(|error| format!("cannot run npm, which comes with Node.js: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("npm {} failed", arguments.join(" "))) }
}
