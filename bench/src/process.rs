//! Processes that the driver starts, watches and ends, each by its own id.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
};

use crate::{
    error::{Context, Error, Result},
    target::Listening,
};

/// How long a process may take to end when it is asked to.
const STOP_WAIT: Duration = Duration::from_secs(15);

/// How long a target or a sink may take until it listens; a page of 200,000 series takes a moment to render.
const LISTEN_WAIT: Duration = Duration::from_secs(60);

/// A process that ends with its handle.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    pid: u32,
    child: Child,
    log: PathBuf,
    /// Held so that a target or a sink may write to it.
    _stdout: Option<ChildStdout>,
}

impl Process {
    /// Starts a system under test; what it says goes to `<name>.log` in the directory.
    pub(crate) fn start(name: &str, program: &Path, args: &[String], dir: &Path, cpu: Option<usize>) -> Result<Self> {
        let mut command = match cpu {
            None => Command::new(program),
            Some(cpu) => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(cpu.to_string()).arg(program);
                command
            }
        };
        command.args(args).stdin(Stdio::null());
        Self::spawn(name, command, dir, |log| Ok(Stdio::from(log.try_clone()?)))
    }

    /// Starts this program as a target or a sink and waits until it listens.
    pub(crate) async fn harness(
        name: &str,
        args: &[String],
        dir: &Path,
        cpu: Option<usize>,
    ) -> Result<(Self, Listening)> {
        let program = std::env::current_exe().context("cannot find this program")?;
        // Thousands of targets need as many connections; the shell raises the limit and gives way to the program.
        let mut command = Command::new("sh");
        let pin = cpu.map_or(String::new(), |cpu| format!("taskset -c {cpu} "));
        command.arg("-c").arg(format!("ulimit -n \"$(ulimit -H -n)\"; exec {pin}\"$0\" \"$@\"")).arg(program);
        // It ends when its standard input does, so that it does not outlive a driver that was killed.
        command.arg(name).args(args).arg("--exit-with-stdin").stdin(Stdio::piped());
        let mut process = Self::spawn(name, command, dir, |_| Ok(Stdio::piped()))?;
        let stdout = process.child.stdout.take().ok_or_else(|| Error::new("no standard output"))?;
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        let read = tokio::time::timeout(LISTEN_WAIT, lines.read_line(&mut line)).await;
        read.context(format!("{name} does not listen"))?.context(format!("{name} does not listen"))?;
        process._stdout = Some(lines.into_inner());
        let Ok(listening) = serde_json::from_str(&line) else {
            return Err(Error::new(format!("{name} does not listen: {}", process.last_words())));
        };
        Ok((process, listening))
    }

    fn spawn(
        name: &str,
        mut command: Command,
        dir: &Path,
        stdout: impl FnOnce(&File) -> std::io::Result<Stdio>,
    ) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let what = format!("cannot start {name}");
        let file = File::create(&log).context(&what)?;
        command.stdout(stdout(&file).context(&what)?).stderr(file).current_dir(dir).kill_on_drop(true);
        let child = command.spawn().context(&what)?;
        let pid = child.id().ok_or_else(|| Error::new(format!("{what}: it has no process id")))?;
        Ok(Self { name: name.to_owned(), pid, child, log, _stdout: None })
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Fails if the process has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait().context(format!("cannot ask after {}", self.name))? {
            None => Ok(()),
            Some(status) => Err(Error::new(format!("{} ended with {status}: {}", self.name, self.last_words()))),
        }
    }

    /// The last line that the process wrote.
    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        line.chars().take(300).collect()
    }

    /// Asks the process to end and, if it does not, makes it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let what = format!("cannot stop {}", self.name);
        let pid = self.pid.to_string();
        let mut ask = Command::new("sh");
        // A process that has ended already is no failure.
        ask.args(["-c", "kill -TERM \"$0\" 2>/dev/null", &pid]).stdin(Stdio::null());
        ask.status().await.context(&what)?;
        match tokio::time::timeout(STOP_WAIT, self.child.wait()).await {
            Ok(ended) => ended.map(drop).context(&what),
            Err(_) => self.child.kill().await.context(&what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("corten-bench-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn shell(script: &str, dir: &Path) -> Process {
        Process::start("shell", Path::new("sh"), &["-c".to_owned(), script.to_owned()], dir, None).unwrap()
    }

    #[tokio::test]
    async fn a_process_that_ended_is_reported_with_its_last_words() {
        let dir = dir("ended");
        let mut process = shell("echo why >&2; exit 3", &dir);
        process.child.wait().await.unwrap();
        let error = process.check().unwrap_err().to_string();
        assert_eq!(error, "shell ended with exit status: 3: why");
        fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn a_process_is_asked_to_end() {
        let dir = dir("asked");
        let mut process = shell("trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.01; done", &dir);
        while fs::read_to_string(&process.log).unwrap() != "up\n" {
            tokio::task::yield_now().await;
        }
        process.check().unwrap();
        let log = process.log.clone();
        process.stop().await.unwrap();
        assert_eq!(fs::read_to_string(log).unwrap(), "up\nasked\n");
        fs::remove_dir_all(dir).unwrap();
    }
}
