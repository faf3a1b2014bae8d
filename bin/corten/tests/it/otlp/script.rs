//! Servers in Python: what only its libraries know.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::library;
use crate::support::not_run;
use crate::torture::until;

/// A server that runs until it is dropped.
pub(crate) struct Script {
    child: Child,
    /// What it said first: where it listens.
    pub(crate) listens: Value,
    said: Arc<Mutex<Vec<Value>>>,
}

impl Script {
    /// Starts a file of this folder with a library and more arguments; none if the library or Python cannot be had.
    pub(crate) fn start(name: &str, packages: &str, more: &[&str]) -> Option<Self> {
        let packages = library(packages)?;
        let file = format!("{}/tests/it/otlp/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("python3");
        command.args([&file, &packages]).args(more).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut child = match command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => return not_run(&format!("not run: python3: {error}")),
        };
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        let mut lines = stdout.lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_else(|| panic!("{name} says nothing"));
        let said: Arc<Mutex<Vec<Value>>> = Arc::default();
        std::thread::spawn({
            let said = Arc::clone(&said);
            move || lines.for_each(|line| said.lock().expect("lines").push(read(&line)))
        });
        Some(Script { child, listens: read(&first), said })
    }

    /// Where it listens, for what.
    pub(crate) fn address(&self, of: &str) -> &str {
        self.listens[of].as_str().unwrap_or_else(|| panic!("no {of} in {}", self.listens))
    }

    /// What it said so far.
    pub(crate) fn said(&self) -> Vec<Value> {
        self.said.lock().expect("lines").clone()
    }

    /// Waits until it has said something, and gives that.
    pub(crate) fn await_said(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(what, || {
            let said = self.said();
            said.iter().find(|line| is_it(line)).cloned().ok_or_else(|| format!("{said:#?}"))
        })
    }
}

fn read(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
