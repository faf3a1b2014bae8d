//! A disk that is full, and then is not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit};

use super::push::{Pusher, RECEIVER, Seen, receiver};
use super::sink::{Mood, Sink, TIMEOUT};
use super::{Rng, expect_ready, metric, resident_max, shared, until};
use crate::support::{Corten, Folder, corten};

/// How much memory stands in for the disk, in bytes: `capacity`, times `max_shards`, times 32.
const MEMORY: u64 = 4_000 * 32;

fn config(sink: &Sink) -> String {
    format!(
        "{RECEIVER}
prometheus.remote_write \"out\" {{
	endpoint {{
		url            = \"http://{}/api/v1/write\"
		remote_timeout = \"{TIMEOUT}\"
		queue_config {{
			max_shards           = 1
			capacity             = {}
			max_samples_per_send = 1000
			batch_send_deadline  = \"50ms\"
			max_backoff          = \"100ms\"
		}}
	}}
	wal {{
		max_bytes = \"1GiB\"
	}}
}}
",
        sink.address,
        MEMORY / 32
    )
}

/// A command that becomes the program after a shell did something. `$0` is its first word.
pub(super) fn after(shell: &str, folder: &Folder, before: &[&str], more: &[&str]) -> Command {
    let arguments = folder.run_arguments(more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let program = corten(&arguments);
    let mut command = Command::new(before.first().copied().unwrap_or("sh"));
    command.args(before.iter().skip(1)).args(if before.is_empty() { &[][..] } else { &["sh"] });
    command.arg("-c").arg(format!("{shell}\nexec \"$0\" \"$@\"")).arg(program.get_program()).args(program.get_args());
    command.env_remove("NO_COLOR").env("TERM", "dumb");
    command
}

/// What may stand between a program and its disk.
trait Disk {
    fn fill(&self);
    fn free(&self);
    /// What the system says of it.
    fn words(&self) -> &'static str;
}

/// Runs the program from an empty disk to a full one and back. Its endpoint is gone at first.
fn survives(corten: Corten, sink: &Sink, disk: &dyn Disk) {
    const SERIES: usize = 200;
    let to = shared(Some(receiver(&corten)));
    let mut pushers: Vec<Pusher> =
        (0..2).map(|number| Pusher::start(number, SERIES, Duration::from_millis(1), &to)).collect();
    let accepted = |pushers: &[Pusher]| pushers.iter().map(Pusher::accepted).sum::<usize>();
    let more = |pushers: &[Pusher], more: usize| {
        let wanted = accepted(pushers) + more;
        until("pushes are accepted", || match accepted(pushers) {
            now if now >= wanted => Ok(()),
            now => Err(format!("{now} of {wanted}")),
        });
    };
    let dropped =
        || metric(&corten, "prometheus_remote_storage_samples_dropped_total", &["reason=\"memory_overflow\""]);
    more(&pushers, 4);
    disk.fill();
    // It says so, and what the trouble is.
    let line = until("it says that the disk is full", || {
        let found = corten.lines().into_iter().find(|line| line.to_lowercase().contains(disk.words()));
        found.ok_or_else(|| format!("{:#?}", corten.lines()))
    });
    assert!(line.contains("level=error") || line.contains("level=warn"), "{line}");
    // What comes now is accepted all the same, as long as there is memory, and then the oldest of it goes.
    more(&pushers, 4);
    expect_ready(&corten);
    until("memory is full, too", || match dropped() {
        Some(dropped) if dropped > 0.0 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    expect_ready(&corten);
    more(&pushers, 4);
    disk.free();
    let line = corten.line("takes records again");
    assert!(line.contains("level=info"), "{line}");
    let lost_before = dropped().unwrap_or_default();
    // Nothing more is lost, and what is written survives.
    more(&pushers, 10);
    assert_eq!(dropped(), Some(lost_before), "nothing is lost any more");
    sink.set(Mood::Works);
    for pusher in &mut pushers {
        let ledger = pusher.stop();
        assert!(ledger.refused.is_empty() && ledger.unknown.is_empty(), "{ledger:?}");
    }
    let mut seen = Seen::default();
    until("all arrives but what was said to be lost", || {
        seen.read(sink);
        let missing = pushers.iter().flat_map(|pusher| pusher.missing(sink, &seen).into_values());
        let missing: usize = missing.map(|series| series.len()).sum();
        match missing as f64 {
            missing if missing == lost_before => Ok(()),
            missing => Err(format!("{missing} samples are missing, {lost_before} were lost")),
        }
    });
    assert!(seen.repeats.len() <= seen.late, "nothing comes twice: {:?}", seen.repeats);
    assert!(resident_max(&corten).is_none_or(|bytes| bytes < 150 << 20), "{:?}", resident_max(&corten));
    corten.end();
}

/// A limit on the size of files of the program, which can be changed while it runs: no file may grow any more.
struct Limit(Pid);

impl Limit {
    fn set(&self, current: Option<u64>) {
        rustix::process::prlimit(Some(self.0), Resource::Fsize, Rlimit { current, maximum: None }).expect("a limit");
    }
}

impl Disk for Limit {
    fn fill(&self) {
        self.set(Some(0));
    }

    fn free(&self) {
        self.set(None);
    }

    fn words(&self) -> &'static str {
        "file too large"
    }
}

#[test]
fn when_no_file_may_grow_the_program_goes_on_and_resumes() {
    let mut rng = Rng::new("disk");
    let sink = Sink::start(Mood::Gone, rng.next());
    let folder = Folder::new(&config(&sink));
    // Beyond the limit the system first sends a signal that would end the program.
    let corten = Corten::start_by(after("trap '' XFSZ", &folder, &[], &[]), folder);
    let limit = Limit(Pid::from_raw(i32::try_from(corten.pid()).expect("a number")).expect("a process"));
    survives(corten, &sink, &limit);
}

/// A small file system, with a file in it that takes what is left.
struct Small(PathBuf);

impl Disk for Small {
    fn fill(&self) {
        let mut size = 1 << 20;
        let mut ballast = Vec::new();
        // In ever smaller pieces, so that nothing is left.
        while size > 0 {
            let path = self.0.join(format!("ballast{}", ballast.len()));
            match fs::write(&path, vec![1; size]) {
                Ok(()) => ballast.push(path),
                Err(_) => {
                    size /= 2;
                    let _ = fs::remove_file(path);
                }
            }
        }
    }

    fn free(&self) {
        for entry in fs::read_dir(&self.0).expect("a folder").map_while(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with("ballast") {
                fs::remove_file(entry.path()).expect("it can go");
            }
        }
    }

    fn words(&self) -> &'static str {
        "no space left on device"
    }
}

/// How a process gets a view of the file systems of its own; nothing where it may not.
fn unshare() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [&["unshare", "-m"], &["unshare", "-U", "-r", "-m"]];
    ways.into_iter().find(|way| {
        let mount = "mount -t tmpfs -o size=1m tmpfs /tmp";
        let mut command = Command::new(way[0]);
        command.args(&way[1..]).args(["sh", "-c", mount]).stderr(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

#[test]
fn when_the_file_system_is_full_the_program_goes_on_and_resumes() {
    use std::io::Write as _;

    let Some(unshare) = unshare() else {
        // Past the test runner, which keeps what tests print that pass.
        let _ = writeln!(std::io::stderr(), "not run: no file system can be mounted here");
        return;
    };
    let mut rng = Rng::new("disk");
    let sink = Sink::start(Mood::Gone, rng.next());
    let folder = Folder::new(&config(&sink));
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("a folder");
    let mount = format!("mount -t tmpfs -o size=8m tmpfs '{}'", data.display());
    let corten = Corten::start_by(after(&mount, &folder, unshare, &[]), folder);
    let inside = Path::new("/proc").join(corten.pid().to_string()).join("root");
    let disk = Small(inside.join(data.strip_prefix("/").expect("an absolute path")));
    survives(corten, &sink, &disk);
}
