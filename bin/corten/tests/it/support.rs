//! The program as a process, and requests to it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where the program says what became of every item.
const BALANCE: &str = "api/v0/corten/balance";

/// How long anything may take that is waited for. Long, because a machine that runs tests may have much else to do; a test that
/// passes never waits so long.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(120);

/// A command of the program.
pub(crate) fn corten(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corten"));
    command.args(arguments).env_remove("NO_COLOR").env("TERM", "dumb").stdin(Stdio::null());
    command
}

/// Runs a command to its end: whether it succeeded, standard output and standard error.
pub(crate) fn output(arguments: &[&str]) -> (bool, String, String) {
    read(corten(arguments).output().expect("the program runs"))
}

/// As [`output`], with text on standard input.
pub(crate) fn output_of_input(arguments: &[&str], input: &str) -> (bool, String, String) {
    let mut command = corten(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    read(child.wait_with_output().expect("the program ends"))
}

fn read(output: Output) -> (bool, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

/// A folder with a configuration.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new(config: &str) -> Self {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        folder.write(config);
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("config.alloy")
    }

    pub(crate) fn config_text(&self) -> String {
        self.config().display().to_string()
    }

    pub(crate) fn write(&self, config: &str) {
        std::fs::write(self.config(), config).expect("a file");
    }

    /// The arguments of `run` for this folder.
    pub(crate) fn run_arguments(&self, more: &[&str]) -> Vec<String> {
        let storage = format!("--storage.path={}", self.path().join("data").display());
        let own = ["run", &self.config_text(), "--server.http.listen-addr=127.0.0.1:0", &storage];
        own.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
    }

    /// Runs the configuration to the end of the process, which is expected to refuse it.
    pub(crate) fn refused(&self, more: &[&str]) -> (String, String) {
        let arguments = self.run_arguments(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (success, stdout, stderr) = output(&arguments);
        assert!(!success, "it runs: {stderr}");
        (stdout, stderr)
    }
}

/// What is fetched for tests, a program or a library, and the folder that holds all of that; none if it was not fetched.
pub(crate) fn fetched(name: &str) -> Option<(PathBuf, PathBuf)> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the build directory").join("peers");
    match xtask::peers::named(name).expect("a peer").find(&dir) {
        Ok(found) => Some((found, dir)),
        Err(error) => not_run(&error),
    }
}

/// Says why a test is not run. In continuous integration all are.
pub(crate) fn not_run<T>(error: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{error}");
    // Past the test runner, which keeps what tests print that pass.
    let _ = writeln!(std::io::stderr(), "{error}");
    None
}

/// A port for a program that is told where to listen, which nobody else gets.
pub(crate) fn free_port() -> u16 {
    corten_testkit::unused_address().port()
}

/// Sends a request to an address and reads until the connection ends.
pub(crate) fn exchange(address: &str, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    let written = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        written.and(read)?;
    } else if let Err(error) = read {
        // Whoever answers before he has read all ends the connection with a reset: the answer is there all the same.
        if error.kind() != std::io::ErrorKind::ConnectionReset {
            return Err(error);
        }
    }
    String::from_utf8(answer).map_err(std::io::Error::other)
}

/// A running program. It is killed when a test fails.
pub(crate) struct Corten {
    pub(crate) folder: Folder,
    child: Child,
    lines: Arc<Lines>,
    reader: Option<JoinHandle<()>>,
    pub(crate) address: String,
    /// What the paths of the web interface begin with, and end with a slash.
    prefix: String,
}

/// An answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn has_header(&self, line: &str) -> bool {
        self.head.lines().any(|have| have.eq_ignore_ascii_case(line))
    }
}

impl Corten {
    /// Starts the program and waits until it listens.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_in(Folder::new(config), &[])
    }

    pub(crate) fn start_in(folder: Folder, more: &[&str]) -> Self {
        let arguments = folder.run_arguments(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let prefix = more.iter().find_map(|argument| argument.strip_prefix("--server.http.ui-path-prefix="));
        let mut corten = Self::start_by(corten(&arguments), folder);
        if let Some(prefix) = prefix {
            corten.prefix = format!("{}/", prefix.trim_end_matches('/'));
        }
        corten
    }

    /// Starts the program by a command, which may do something before it becomes the program.
    pub(crate) fn start_by(mut command: Command, folder: Folder) -> Self {
        command.stdout(Stdio::null());
        Self::spawn(command, folder)
    }

    /// Starts the program by a command, and keeps what it prints to standard output in a file.
    pub(crate) fn start_printing(mut command: Command, folder: Folder, to: &Path) -> Self {
        command.stdout(std::fs::File::create(to).expect("a file"));
        Self::spawn(command, folder)
    }

    fn spawn(mut command: Command, folder: Folder) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program runs");
        let lines = Arc::new(Lines::default());
        let stderr = BufReader::new(child.stderr.take().expect("its standard error"));
        let reader = std::thread::spawn({
            let lines = Arc::clone(&lines);
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    lines.lines.lock().expect("lines").push(line);
                    lines.more.notify_all();
                }
            }
        });
        let mut corten =
            Corten { folder, child, lines, reader: Some(reader), address: String::new(), prefix: "/".to_owned() };
        let line = corten.line("now listening for http traffic");
        let address = line.split("addr").nth(1).expect("an address");
        corten.address = address.trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
        corten
    }

    /// Waits for a line that holds a text.
    pub(crate) fn line(&self, text: &str) -> String {
        self.nth_line(text, 1)
    }

    /// Waits for the nth line that holds a text.
    pub(crate) fn nth_line(&self, text: &str, nth: usize) -> String {
        let started = Instant::now();
        let mut lines = self.lines.lines.lock().expect("lines");
        loop {
            if let Some(line) = lines.iter().filter(|line| line.contains(text)).nth(nth - 1) {
                return line.clone();
            }
            let left = WAIT_MAX.checked_sub(started.elapsed());
            let left = left.unwrap_or_else(|| panic!("no line with {text:?} among {lines:#?}"));
            lines = self.lines.more.wait_timeout(lines, left).expect("lines").0;
        }
    }

    /// The lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lines.lock().expect("lines").clone()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    pub(crate) fn get_as(&self, path: &str, credentials: &str) -> Answer {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Basic {credentials}\r\n\r\n"
        );
        self.send(&head)
    }

    fn send(&self, head: &str) -> Answer {
        let text = exchange(&self.address, head).expect("it listens and answers");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Puts another configuration in place and asks for a reload.
    pub(crate) fn reload(&self, config: &str) -> Answer {
        self.folder.write(config);
        self.get("/-/reload")
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// The number of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status;
            }
            assert!(started.elapsed() < WAIT_MAX, "it does not end: {:#?}", self.lines());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the process as a power cut does, and keeps its folder.
    pub(crate) fn kill(mut self) -> Folder {
        self.child.kill().expect("it runs");
        self.wait();
        self.take_folder()
    }

    /// Looks at whether every item is accounted for, which is so as soon as nothing stands between two counts.
    ///
    /// # Panics
    ///
    /// When a sum stays uneven: something was lost, doubled or forgotten to be counted.
    pub(crate) fn balanced(&self) {
        self.balanced_by(|| self.get(&self.balance()));
    }

    fn balance(&self) -> String {
        format!("{}{BALANCE}", self.prefix)
    }

    fn balanced_by(&self, ask: impl Fn() -> Answer) {
        let started = Instant::now();
        loop {
            let answer = ask();
            assert_eq!(answer.status, 200, "no balance: {}", answer.body);
            let balance: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
            if balance["closes"] == true {
                return;
            }
            let open = &balance["open"];
            assert!(
                open.as_array().is_some_and(|open| !open.is_empty()),
                "it does not close and says nothing: {balance}"
            );
            assert!(started.elapsed() < WAIT_MAX, "what is not accounted for: {open:#}\nof {balance:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the process as a service manager does, and keeps its folder.
    pub(crate) fn end_keeping(mut self) -> Folder {
        let folder = self.take_folder();
        self.end();
        folder
    }

    fn take_folder(&mut self) -> Folder {
        std::mem::replace(&mut self.folder, Folder::new(""))
    }

    /// Ends the process as a service manager does, after a look at whether every item is accounted for. All lines that it
    /// ever wrote.
    pub(crate) fn end(self) -> Vec<String> {
        self.balanced();
        self.end_unasked()
    }

    /// As [`end`](Self::end), where the program does not answer everybody.
    pub(crate) fn end_as(self, credentials: &str) -> Vec<String> {
        self.balanced_by(|| self.get_as(&self.balance(), credentials));
        self.end_unasked()
    }

    /// As [`end`](Self::end), where the program cannot be asked: it ends already, or does not speak plain HTTP.
    pub(crate) fn end_unasked(mut self) -> Vec<String> {
        self.signal(rustix::process::Signal::TERM);
        let status = self.wait();
        self.reader.take().expect("a reader").join().expect("it reads to the end");
        let lines = self.lines();
        assert!(status.success(), "{status}: {lines:#?}");
        lines
    }
}

impl Drop for Corten {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
