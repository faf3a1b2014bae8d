//! What signals do.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;

use rustix::process::Signal;

use crate::support::{Corten, Folder};

/// Makes a pipe with a name.
fn pipe(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("a pipe");
}

#[test]
fn a_hangup_loads_the_configuration_again() {
    let corten = Corten::start("");
    corten.folder.write("logging {\n\tformat = \"json\"\n}\n");
    corten.signal(Signal::HUP);
    let line = corten.line("config reloaded");
    assert!(line.starts_with("{\"ts\":"), "{line}");
    corten.folder.write("logging {\n");
    corten.signal(Signal::HUP);
    let line = corten.line("failed to reload config");
    assert!(line.starts_with("{\"ts\":") && line.contains("expected }, got EOF"), "{line}");
    assert_eq!(corten.get("/-/ready").status, 200);
    corten.end();
}

#[test]
fn interrupt_and_termination_end_the_process_well() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut corten = Corten::start("logging {\n\tformat = \"json\"\n}\n");
        corten.signal(signal);
        assert_eq!(corten.wait().code(), Some(0));
        let last = corten.line("shutting down");
        assert!(last.starts_with("{\"ts\":"), "{last}");
        assert!(TcpStream::connect(&corten.address).is_err());
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let mut corten = Corten::start("");
    // A reload that reads a pipe to which nobody writes holds up the end.
    std::fs::remove_file(corten.folder.config()).expect("there is a file");
    pipe(&corten.folder.config());
    let mut stream = TcpStream::connect(&corten.address).expect("it listens");
    stream.write_all(b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").expect("it reads");
    corten.line("reload requested via /-/reload endpoint");
    corten.signal(Signal::TERM);
    corten.line("shutting down");
    corten.signal(Signal::TERM);
    assert_eq!(corten.wait().code(), Some(128 + 15));
}

#[test]
fn a_signal_that_comes_before_anything_runs_ends_the_process() {
    // Reading a pipe that nobody writes to holds up the first load.
    let folder = Folder::new("");
    let pipe = folder.path().join("pipe.alloy");
    self::pipe(&pipe);
    let storage = format!("--storage.path={}", folder.path().join("data").display());
    let pipe = pipe.display().to_string();
    let mut child = crate::support::corten(&["run", &pipe, &storage, "--server.http.listen-addr=127.0.0.1:0"])
        .spawn()
        .expect("the program runs");
    // The seed is written after the signals are listened to.
    let seed = folder.path().join("data/alloy_seed.json");
    while !seed.exists() {
        assert!(child.try_wait().expect("a status").is_none(), "it ended");
        std::thread::yield_now();
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).expect("it runs");
    assert!(child.wait().expect("a status").success());
}
