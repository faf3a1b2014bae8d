//! Scenarios of logs: files are tailed and their lines are sent on.

pub(crate) mod configure;
pub(crate) mod lines;
pub(crate) mod sink;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use self::{
    configure::{LogsJob, Parse},
    lines::{Lines, Shape},
    sink::Stats,
};
use crate::{
    callgrind,
    driver::{Edge, Figures, LOOK_EVERY, MIB, Measured, wait_ready, watch_memory},
    error::{Context, Error, Result},
    http,
    process::Process,
    procfs::{self, Cpu, Memory},
    subject::Subject,
};

/// How long a subject that does not tell when it is ready is given.
const START_REST: Duration = Duration::from_millis(1500);

/// How long nothing may arrive until a run is given up.
const STALL: Duration = Duration::from_secs(30);

/// Under the simulator everything takes some fifty times longer.
const STALL_COUNTED: Duration = Duration::from_secs(300);

/// How long the sink is watched for lines that come twice, after the last one has arrived.
const AFTER: Duration = Duration::from_millis(500);

/// How long lines are written before a steady window begins.
const WARM: Duration = Duration::from_secs(5);

/// How often lines are written in a steady run.
const WRITE_EVERY: Duration = Duration::from_millis(50);

/// How long idle files rest before they are looked at: two of the slowest looks at each.
const FILES_REST: Duration = Duration::from_secs(25);

/// Lines tailed to a push API.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    /// Files.
    pub(crate) files: usize,
    /// Lines in each file of a backlog.
    pub(crate) lines: u64,
    /// What they look like.
    pub(crate) shape: Shape,
    /// What is taken out of each line.
    pub(crate) parse: Parse,
    /// Lines that are written in a second; none for a backlog.
    pub(crate) rate: u64,
}

/// What a side of a comparison does with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    /// From exec until the last line of the backlog has arrived.
    Backlog,
    /// The same under the simulator that counts instructions, the durable queue on or off.
    Counted {
        /// Whether lines pass the disk.
        durable: bool,
    },
    /// A window in which lines are written steadily.
    Steady,
    /// A window in which nothing is written, after all files were read.
    Rest,
}

/// How one run is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings<'a> {
    /// Its directory.
    pub(crate) dir: &'a Path,
    /// The processor of the subject and that of the harness, if they are to be kept apart.
    pub(crate) cpus: (Option<usize>, Option<usize>),
    /// The length of a window.
    pub(crate) window: Duration,
    /// The seed of the lines.
    pub(crate) seed: u64,
}

/// Measures one run.
pub(crate) async fn measure(settings: Settings<'_>, subject: &Subject, load: &Load, way: Way) -> Measured {
    let mut args = Vec::new();
    if load.parse == Parse::Json && subject.sends_labels() {
        args.extend(["--times".to_owned(), "--labels".to_owned()]);
    }
    let (mut sink, listening) = Process::harness("logsink", &args, settings.dir, settings.cpus.1).await?;
    let sink_at = listening.address;
    let run = Run { settings, subject, load, way, sink_at, text_at: stats(sink_at).await?.text_address };
    let measured = match way {
        Way::Backlog | Way::Counted { .. } => run.backlog(&sink).await,
        Way::Steady => run.steady(&sink).await,
        Way::Rest => run.rest(&sink).await,
    };
    sink.check()?;
    sink.stop().await?;
    measured
}

async fn stats(sink: SocketAddr) -> Result<Stats> {
    http::get_json(sink, "/stats").await
}

/// One run of one subject.
struct Run<'a> {
    settings: Settings<'a>,
    subject: &'a Subject,
    load: &'a Load,
    way: Way,
    sink_at: SocketAddr,
    text_at: Option<SocketAddr>,
}

impl Run<'_> {
    fn counted(&self) -> bool {
        matches!(self.way, Way::Counted { .. })
    }

    /// Starts the subject on the files of a directory, and waits until it is ready if it is to.
    async fn start(&self, dir: &Path, logs: &Path, ready: bool) -> Result<Process> {
        let launch = configure::prepare(
            self.subject,
            &LogsJob {
                dir,
                logs,
                files: self.load.files,
                parse: self.load.parse,
                durable: self.way != Way::Counted { durable: false },
                push: self.sink_at,
                text: self.text_at.ok_or_else(|| Error::new("the sink takes no text"))?,
            },
        )?;
        let (program, args) = match self.counted() {
            true => callgrind::command(&launch.program, &launch.args, dir),
            false => (launch.program, launch.args),
        };
        let process = Process::start(&self.subject.name, &program, &args, dir, self.settings.cpus.0)?;
        if ready {
            match launch.ready {
                Some(address) => drop(wait_ready(address).await?),
                None => tokio::time::sleep(START_REST).await,
            }
        }
        Ok(process)
    }

    /// What a start costs without any line: processor time, or instructions.
    async fn start_cost(&self) -> Result<u64> {
        let dir = self.settings.dir.join("start");
        let logs = dir.join("logs");
        fs::create_dir_all(&logs).context(format!("cannot make {}", logs.display()))?;
        lines::write(&logs, self.load.files, 0, self.load.shape, 0)?;
        let mut process = self.start(&dir, &logs, true).await?;
        tokio::time::sleep(AFTER).await;
        process.check()?;
        let cost = match self.counted() {
            true => callgrind::count(process.pid(), &dir).await?,
            false => Cpu::read(process.pid())?.total_ns(),
        };
        process.stop().await?;
        Ok(cost)
    }

    async fn backlog(&self, sink: &Process) -> Measured {
        let dir = self.settings.dir;
        let logs = dir.join("logs");
        let (files, lines, shape) = (self.load.files, self.load.lines, self.load.shape);
        let (to, seed) = (logs.clone(), self.settings.seed);
        let written = tokio::task::spawn_blocking(move || lines::write(&to, files, lines, shape, seed));
        written.await.context("cannot write lines")??;
        let start_cost = self.start_cost().await?;

        let total = files as u64 * lines;
        let harness = [sink.pid(), std::process::id()];
        let machine = (Instant::now(), procfs::machine_busy()?.0, harness_ns(&harness)?);
        let began_ns = unix_ns();
        let mut process = self.start(dir, &logs, false).await?;
        let mut arrived = self.arrive(&mut process, total).await?;
        let spent = Cpu::read(process.pid())?;
        let memory = Memory::read(process.pid())?;
        let disk = procfs::written(process.pid());
        let machine = (machine.0.elapsed(), procfs::machine_busy()?.0 - machine.1, harness_ns(&harness)? - machine.2);
        let mut figures = Figures::new();
        if self.counted() {
            let count = callgrind::count(process.pid(), dir).await?;
            figures.insert("instructions_per_line", count.saturating_sub(start_cost) as f64 / total as f64);
        } else {
            let cpu_ns = spent.total_ns();
            figures.insert("cpu_us_per_line", cpu_ns.saturating_sub(start_cost) as f64 / 1e3 / total as f64);
            figures.insert("start_cpu_ms", start_cost as f64 / 1e6);
            figures.insert("rss_peak_mib", memory.peak as f64 / MIB);
            let seconds = machine.0.as_secs_f64();
            figures.insert("harness_cores", machine.2 as f64 / 1e9 / seconds);
            figures.insert("other_cores", machine.1.saturating_sub(machine.2 + cpu_ns) as f64 / 1e9 / seconds);
        }
        tokio::time::sleep(AFTER).await;
        if missing(&arrived, total).is_none() {
            arrived = stats(self.sink_at).await?;
        }
        figures.insert("cpu_user_share", spent.since(&Cpu::default()).user_share);
        figures.insert("threads", memory.threads as f64);
        figures.insert("wire_bytes_per_line", arrived.wire_bytes as f64 / total as f64);
        figures.insert("lines_per_request", arrived.lines as f64 / arrived.requests as f64);
        let seconds = arrived.last_unix_ns.saturating_sub(began_ns) as f64 / 1e9;
        figures.insert("lines_per_second", arrived.lines as f64 / seconds);
        figures.extend(disk.map(|bytes| ("written_bytes_per_line", bytes as f64 / total as f64)));
        figures.retain(|_, value| value.is_finite());
        process.stop().await?;
        Ok((figures, missing(&arrived, total)))
    }

    /// Waits until all lines have arrived, or until nothing arrives any more.
    async fn arrive(&self, process: &mut Process, total: u64) -> Result<Stats> {
        let stall = if self.counted() { STALL_COUNTED } else { STALL };
        let mut last = (Instant::now(), 0);
        loop {
            process.check()?;
            let now = stats(self.sink_at).await?;
            let seen = now.lines + now.duplicate + now.damaged;
            if now.lines >= total || last.0.elapsed() > stall {
                return Ok(now);
            }
            if seen != last.1 {
                last = (Instant::now(), seen);
            }
            tokio::time::sleep(LOOK_EVERY / 2).await;
        }
    }

    async fn steady(&self, sink: &Process) -> Measured {
        let dir = self.settings.dir;
        let logs = dir.join("logs");
        lines::write(&logs, self.load.files, 0, self.load.shape, 0)?;
        let mut process = self.start(dir, &logs, true).await?;
        let writer = Writer::start(&logs, self.load, self.settings.seed)?;
        tokio::time::sleep(WARM).await;

        let mut figures = Figures::new();
        let harness = [sink.pid(), std::process::id()];
        let arrived_before = stats(self.sink_at).await?;
        let before = Edge::read(process.pid(), &harness)?;
        watch_memory(&mut process, before.at + self.settings.window, &mut figures).await?;
        let arrived_after = stats(self.sink_at).await?;
        let after = Edge::read(process.pid(), &harness)?;
        let total = writer.end()?;
        let arrived = self.arrive(&mut process, total).await?;

        after.load(&before, &mut figures);
        let seconds = (after.at - before.at).as_secs_f64();
        let lines = (arrived_after.lines - arrived_before.lines) as f64;
        let spent = after.subject.since(&before.subject);
        figures.insert("lines_per_second", lines / seconds);
        figures.insert("cpu_us_per_line", spent.total_ns as f64 / 1e3 / lines);
        figures.insert("cpu_user_share", spent.user_share);
        figures.insert("wire_bytes_per_line", (arrived_after.wire_bytes - arrived_before.wire_bytes) as f64 / lines);
        figures.insert("lines_per_request", lines / (arrived_after.requests - arrived_before.requests) as f64);
        if let (Some(before), Some(after)) = (before.written, after.written) {
            figures.insert("written_bytes_per_line", after.saturating_sub(before) as f64 / lines);
        }
        figures.retain(|_, value| value.is_finite());
        let planned = self.load.rate as f64 * seconds;
        let void = missing(&arrived, total).or_else(|| {
            (lines < planned * 0.9).then(|| format!("{:.0} % of the planned lines arrived", 100.0 * lines / planned))
        });
        process.stop().await?;
        Ok((figures, void))
    }

    async fn rest(&self, sink: &Process) -> Measured {
        let dir = self.settings.dir;
        let logs = dir.join("logs");
        lines::write(&logs, self.load.files, self.load.lines, self.load.shape, self.settings.seed)?;
        let mut process = self.start(dir, &logs, true).await?;
        let total = self.load.files as u64 * self.load.lines;
        let arrived = self.arrive(&mut process, total).await?;
        tokio::time::sleep(FILES_REST).await;

        let mut figures = Figures::new();
        let harness = [sink.pid(), std::process::id()];
        let before = Edge::read(process.pid(), &harness)?;
        watch_memory(&mut process, before.at + self.settings.window, &mut figures).await?;
        let after = Edge::read(process.pid(), &harness)?;
        after.load(&before, &mut figures);
        let seconds = (after.at - before.at).as_secs_f64();
        let spent = after.subject.since(&before.subject);
        figures.insert("cpu_ms_per_second", spent.total_ns as f64 / 1e6 / seconds);
        figures.extend(procfs::descriptors(process.pid()).map(|count| ("descriptors", count as f64)));
        process.stop().await?;
        Ok((figures, missing(&arrived, total)))
    }
}

fn harness_ns(pids: &[u32]) -> Result<u64> {
    pids.iter().map(|&pid| Ok(Cpu::read(pid)?.total_ns())).sum()
}

/// Now, in nanoseconds since the epoch.
pub(crate) fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What is missing, too much or wrong of what was written.
fn missing(stats: &Stats, total: u64) -> Option<String> {
    let count = |count: u64, what: &str| (count > 0).then(|| format!("{count} {what}"));
    if stats.malformed > 0 {
        return Some(format!("{} malformed requests: {}", stats.malformed, stats.malformed_last));
    }
    count(stats.damaged, "lines arrived damaged")
        .or_else(|| count(stats.duplicate, "lines arrived again"))
        .or_else(|| count(stats.out_of_order, "lines arrived out of order"))
        .or_else(|| count(stats.mislabelled, "lines have wrong labels"))
        .or_else(|| count(stats.mistimed, "lines have a wrong time"))
        .or_else(|| (stats.lines != total).then(|| format!("{} of {total} lines arrived", stats.lines)))
}

/// Appends lines to all files at a steady rate, on a thread of its own.
#[derive(Debug)]
struct Writer {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<std::io::Result<u64>>,
}

impl Writer {
    fn start(dir: &Path, load: &Load, seed: u64) -> Result<Self> {
        let mut files = Vec::new();
        for file in 0..load.files {
            let path = lines::path(dir, file);
            let open =
                OpenOptions::new().append(true).open(&path).context(format!("cannot open {}", path.display()))?;
            files.push((open, Lines::new(load.shape, file, seed)));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, rate) = (Arc::clone(&stop), load.rate);
        let thread = thread::spawn(move || {
            let began = Instant::now();
            let mut written = 0_u64;
            let mut text = Vec::new();
            for turn in 1_u32.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                // Every file gets the same number of lines a turn; what does not divide is owed to the next.
                let due = (began.elapsed().as_secs_f64() * rate as f64) as u64 / files.len() as u64;
                for (file, lines) in &mut files {
                    text.clear();
                    for _ in written..due {
                        lines.next(&mut text);
                    }
                    file.write_all(&text)?;
                }
                written = written.max(due);
                thread::sleep((began + WRITE_EVERY * turn).saturating_duration_since(Instant::now()));
            }
            Ok(written * files.len() as u64)
        });
        Ok(Self { stop, thread })
    }

    /// Stops; gives the number of lines that were written.
    fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Error::new("the writer of lines panicked"))?.context("cannot write lines")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_void_when_lines_are_missing_doubled_or_wrong() {
        let clean = Stats { lines: 10, ..Stats::default() };
        assert_eq!(missing(&clean, 10), None);
        assert_eq!(missing(&clean, 11).as_deref(), Some("10 of 11 lines arrived"));
        let wrong = |change: fn(&mut Stats)| {
            let mut stats = clean.clone();
            change(&mut stats);
            missing(&stats, 10).unwrap()
        };
        assert_eq!(wrong(|stats| stats.duplicate = 1), "1 lines arrived again");
        assert_eq!(wrong(|stats| stats.out_of_order = 2), "2 lines arrived out of order");
        assert_eq!(wrong(|stats| stats.damaged = 3), "3 lines arrived damaged");
        assert_eq!(wrong(|stats| stats.mislabelled = 4), "4 lines have wrong labels");
        assert_eq!(wrong(|stats| stats.mistimed = 5), "5 lines have a wrong time");
        assert!(wrong(|stats| stats.malformed = 1).starts_with("1 malformed requests"));
    }

    #[test]
    fn a_steady_writer_writes_what_it_says() {
        let dir = std::env::temp_dir().join(format!("corten-bench-writer-{}", std::process::id()));
        let load = Load { files: 3, lines: 0, shape: Shape::Raw, parse: Parse::None, rate: 3000 };
        lines::write(&dir, 3, 0, Shape::Raw, 1).unwrap();
        let writer = Writer::start(&dir, &load, 1).unwrap();
        while fs::metadata(lines::path(&dir, 2)).unwrap().len() == 0 {
            thread::yield_now();
        }
        let written = writer.end().unwrap();
        let size: u64 = (0..3).map(|file| fs::metadata(lines::path(&dir, file)).unwrap().len()).sum();
        assert_eq!(size, written * lines::RAW_BYTES as u64);
        fs::remove_dir_all(dir).unwrap();
    }
}
