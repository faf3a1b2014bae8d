//! Instructions of a subject, counted by valgrind's callgrind while the subject runs on its simulated processor.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;

use crate::error::{Context, Error, Result};

/// What runs the subject.
const VALGRIND: &str = "valgrind";

/// What talks to it.
const CONTROL: &str = "callgrind_control";

/// How long callgrind may take to answer. It does so between two blocks of instructions, or when a call returns.
const CONTROL_WAIT: Duration = Duration::from_secs(60);

/// The command line that runs a program with its instructions counted. Its process keeps its id.
pub(crate) fn command(program: &Path, args: &[String], dir: &Path) -> (PathBuf, Vec<String>) {
    let mut all = vec![
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={}", dir.join("callgrind.out").display()),
        // Threads take turns: without this one that computes may keep the others waiting for long.
        "--fair-sched=yes".to_owned(),
        program.display().to_string(),
    ];
    all.extend(args.iter().cloned());
    (PathBuf::from(VALGRIND), all)
}

/// Sets the count to zero.
pub(crate) async fn zero(pid: u32) -> Result<()> {
    control(pid, "--zero").await
}

/// The count since it was set to zero.
pub(crate) async fn count(pid: u32, dir: &Path) -> Result<u64> {
    control(pid, "--dump").await?;
    // Dumps are numbered from one; there is this one only.
    let dump = dir.join("callgrind.out.1");
    let text = fs::read_to_string(&dump).context(format!("cannot read {}", dump.display()))?;
    total(&text).ok_or_else(|| Error::new(format!("{} says no total", dump.display())))
}

async fn control(pid: u32, what: &str) -> Result<()> {
    let mut command = Command::new(CONTROL);
    command.arg(what).arg(pid.to_string()).kill_on_drop(true);
    let told = format!("{CONTROL} {what}");
    let output = tokio::time::timeout(CONTROL_WAIT, command.output()).await.context(&told)?.context(&told)?;
    // It ends well also when it reached nobody, and says so.
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if !output.status.success() || !said.contains("OK.") {
        return Err(Error::new(format!("{told}: {}", said.lines().last().unwrap_or("no answer"))));
    }
    Ok(())
}

/// The number behind `totals:`, which is of instructions as long as no caches are simulated.
fn total(dump: &str) -> Option<u64> {
    let line = dump.lines().rev().find_map(|line| line.strip_prefix("totals:").or(line.strip_prefix("summary:")))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_dump_is_read() {
        assert_eq!(
            total("events: Ir\nsummary: 7\n\nfn=(1) a\n1 2\n\ntotals: 1234567890123\n"),
            Some(1_234_567_890_123)
        );
        assert_eq!(total("events: Ir\nsummary: 7\n"), Some(7));
        assert_eq!(total("totals: x\n"), None);
        assert_eq!(total(""), None);
    }

    #[test]
    fn the_program_stands_behind_the_options() {
        let (program, args) = command(Path::new("/b/corten"), &["run".to_owned()], Path::new("/d"));
        assert_eq!(program, Path::new("valgrind"));
        assert_eq!(args[1], "--callgrind-out-file=/d/callgrind.out");
        assert_eq!(args[args.len() - 2..], ["/b/corten", "run"]);
    }
}
