//! What Linux says of a process and of the machine: processor time, memory, bytes written.

use std::{collections::HashMap, fs, path::PathBuf};

use crate::error::{Context, Error, Result};

/// One tick of `/proc/PID/stat` and `/proc/stat`: USER_HZ is 100 on every architecture that we run on.
const TICK_NS: u64 = 10_000_000;

/// Processor time of a process at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    /// Nanoseconds run by each live thread, from `task/*/schedstat`; empty if the kernel does not keep them.
    threads_ns: HashMap<u32, u64>,
    /// Ticks in user mode, with the threads that have ended.
    user_ticks: u64,
    /// Ticks in the kernel, with the threads that have ended.
    system_ticks: u64,
}

/// Processor time between two moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CpuSpent {
    /// Nanoseconds in all.
    pub(crate) total_ns: u64,
    /// Of the ticks, the share in user mode.
    pub(crate) user_share: f64,
}

impl Cpu {
    /// Reads the process's time.
    pub(crate) fn read(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).context(&path)?;
        let (user_ticks, system_ticks) = parse_stat(&text).ok_or_else(|| Error::new(format!("cannot read {path}")))?;
        let mut threads_ns = HashMap::new();
        let tasks = format!("/proc/{pid}/task");
        for entry in fs::read_dir(&tasks).context(&tasks)? {
            let entry = entry.context(&tasks)?;
            let thread = entry.file_name().to_str().and_then(|name| name.parse().ok());
            // A thread may end between the listing and the reading.
            let run = fs::read_to_string(entry.path().join("schedstat")).ok();
            let run = run.as_deref().and_then(|text| text.split_ascii_whitespace().next()?.parse().ok());
            if let (Some(thread), Some(run)) = (thread, run) {
                threads_ns.insert(thread, run);
            }
        }
        Ok(Self { threads_ns, user_ticks, system_ticks })
    }

    /// What was spent since an earlier moment.
    ///
    /// Nanoseconds of the threads where they tell all; ticks of the process where a thread has ended meanwhile, whose
    /// time only they hold, and where the kernel keeps no nanoseconds.
    pub(crate) fn since(&self, before: &Self) -> CpuSpent {
        let user = self.user_ticks.saturating_sub(before.user_ticks);
        let ticks = user + self.system_ticks.saturating_sub(before.system_ticks);
        let ended = before.threads_ns.keys().any(|thread| !self.threads_ns.contains_key(thread));
        let exact: u64 = self
            .threads_ns
            .iter()
            .map(|(thread, now)| now.saturating_sub(before.threads_ns.get(thread).copied().unwrap_or(0)))
            .sum();
        let total_ns = if ended || self.threads_ns.is_empty() { exact.max(ticks * TICK_NS) } else { exact };
        CpuSpent { total_ns, user_share: if ticks == 0 { 0.0 } else { user as f64 / ticks as f64 } }
    }
}

impl Cpu {
    /// All that was spent since the process began, also by threads that have ended: their time only the ticks hold.
    pub(crate) fn total_ns(&self) -> u64 {
        let exact: u64 = self.threads_ns.values().sum();
        exact.max((self.user_ticks + self.system_ticks) * TICK_NS)
    }
}

/// User and system ticks (fields 14 and 15) of `/proc/PID/stat`; the name in field 2 may hold anything.
fn parse_stat(text: &str) -> Option<(u64, u64)> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Memory and threads of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// What is resident.
    pub(crate) rss: u64,
    /// The most that was resident since the mark was reset.
    pub(crate) peak: u64,
    /// Of what is resident, the part that no file stands behind.
    pub(crate) anonymous: u64,
    /// Threads.
    pub(crate) threads: u64,
}

impl Memory {
    /// Reads the process's memory.
    pub(crate) fn read(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let text = fs::read_to_string(&path).context(&path)?;
        parse_status(&text).ok_or_else(|| Error::new(format!("cannot read {path}")))
    }
}

fn parse_status(text: &str) -> Option<Memory> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let kib = |name| field(name)?.checked_mul(1024);
    Some(Memory { rss: kib("VmRSS")?, peak: kib("VmHWM")?, anonymous: kib("RssAnon")?, threads: field("Threads")? })
}

/// Sets the peak of the process's resident memory back to what is resident now.
pub(crate) fn reset_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").context(path)
}

/// Resident memory with shared pages divided among their users, in bytes.
pub(crate) fn proportional(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Open file descriptors of the process.
pub(crate) fn descriptors(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// Bytes that the process has caused to be written to storage.
pub(crate) fn written(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

/// Nanoseconds that all processors of the machine were busy, and that a host took from them, since it was started.
pub(crate) fn machine_busy() -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    parse_machine(&text).ok_or_else(|| Error::new("cannot read /proc/stat"))
}

/// Fields of the first line: user, nice, system, idle, iowait, irq, softirq, steal.
fn parse_machine(text: &str) -> Option<(u64, u64)> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let ticks: Vec<u64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let field = |index: usize| ticks.get(index).copied().unwrap_or(0);
    let busy = [0, 1, 2, 5, 6].into_iter().map(field).fold(0, u64::saturating_add);
    Some((busy.saturating_mul(TICK_NS), field(7).saturating_mul(TICK_NS)))
}

/// The processor's name and the kernel's version.
pub(crate) fn machine() -> (String, String) {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let model = model.trim_start_matches([' ', '\t', ':']).to_owned();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    (model, kernel.trim().to_owned())
}

/// Bytes of all files below a directory.
pub(crate) fn directory_bytes(path: PathBuf) -> u64 {
    let mut total = 0;
    let mut open = vec![path];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            // A file may vanish meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            } else {
                total += metadata.len();
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let text = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 700 30 0 0 20 0 9 0 100";
        assert_eq!(parse_stat(text), Some((700, 30)));
        assert_eq!(parse_stat("42 (a) S 1"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "Name:\tx\nVmHWM:\t    200 kB\nVmRSS:\t     100 kB\nRssAnon:\t      40 kB\nThreads:\t7\n";
        assert_eq!(parse_status(text), Some(Memory { rss: 102_400, peak: 204_800, anonymous: 40_960, threads: 7 }));
        assert_eq!(parse_status("VmRSS: x kB\n"), None);
    }

    #[test]
    fn idle_and_waiting_are_not_busy_and_steal_is_apart() {
        let text = "cpu  1 2 3 400 500 6 7 8 0 0\ncpu0 1\n";
        assert_eq!(parse_machine(text), Some((19 * TICK_NS, 8 * TICK_NS)));
    }

    #[test]
    fn the_time_of_a_thread_that_ended_is_taken_from_the_ticks() {
        let cpu = |threads: &[(u32, u64)], user_ticks, system_ticks| Cpu {
            threads_ns: threads.iter().copied().collect(),
            user_ticks,
            system_ticks,
        };
        let before = cpu(&[(1, 100), (2, 50)], 10, 10);
        let spent = cpu(&[(1, 5_000_100), (2, 50), (3, 7)], 13, 11).since(&before);
        assert_eq!(spent, CpuSpent { total_ns: 5_000_007, user_share: 0.75 });
        assert_eq!(cpu(&[(1, 110)], 13, 11).since(&before).total_ns, 40_000_000);
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id();
        let memory = Memory::read(pid).unwrap();
        assert!(memory.rss > 0 && memory.peak >= memory.anonymous && memory.threads > 0);
        let before = Cpu::read(pid).unwrap();
        let mut sum = 0_u64;
        while Cpu::read(pid).unwrap().since(&before).total_ns == 0 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(machine_busy().unwrap().0 > 0);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,200}") {
            let _ = (parse_stat(&text), parse_status(&text), parse_machine(&text));
            let _ = parse_machine(&format!("cpu {text}"));
        }
    }
}
