//! What the system knows of this process and of the machine's network.

/// What the system knows of this process. What it does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessStats {
    /// Time that the process spent on processors, in user mode and in the kernel.
    pub cpu_seconds: Option<f64>,
    /// Memory that it occupies.
    pub resident_bytes: Option<f64>,
    /// Its address space.
    pub virtual_bytes: Option<f64>,
    /// The limit on its address space; infinite where there is none.
    pub virtual_bytes_max: Option<f64>,
    /// When it started, in seconds since the Unix epoch.
    pub start_time_seconds: Option<f64>,
    /// How many files it has open.
    pub open_files: Option<f64>,
    /// How many it may have open.
    pub open_files_max: Option<f64>,
    /// What its network namespace received at the level of IP.
    pub network_received_bytes: Option<f64>,
    /// What its network namespace sent at the level of IP.
    pub network_transmitted_bytes: Option<f64>,
}

/// For how many seconds the machine has been running; nothing where the system does not tell.
pub fn machine_uptime_seconds() -> Option<f64> {
    #[cfg(target_os = "linux")]
    {
        std::fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        None
    }
}

/// What went over the machine's network interfaces, all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NetworkStats {
    /// Received.
    pub received_bytes: f64,
    /// Sent.
    pub transmitted_bytes: f64,
}

/// Asks the system about this process.
pub fn process_stats() -> ProcessStats {
    #[cfg(target_os = "linux")]
    {
        linux::process_stats()
    }
    #[cfg(not(target_os = "linux"))]
    {
        ProcessStats::default()
    }
}

/// Asks the system about the network; nothing where it does not tell.
pub fn network_stats() -> Option<NetworkStats> {
    #[cfg(target_os = "linux")]
    {
        Some(linux::interface_totals(&std::fs::read_to_string("/proc/net/dev").ok()?))
    }
    #[cfg(not(target_os = "linux"))]
    {
        None
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::read_to_string;

    use rustix::process::{Resource, getrlimit};

    use super::{NetworkStats, ProcessStats};

    pub(super) fn process_stats() -> ProcessStats {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as f64;
        let stat = read_to_string("/proc/self/stat").ok();
        let stat = stat.as_deref().and_then(own_stat);
        let boot = read_to_string("/proc/stat").ok();
        let boot = boot.as_deref().and_then(boot_time);
        let netstat = read_to_string("/proc/self/net/netstat").ok();
        let (received, transmitted) = netstat.as_deref().map(ip_octets).unwrap_or_default();
        let limit = |resource| Some(getrlimit(resource).current.map_or(f64::INFINITY, |value| value as f64));
        ProcessStats {
            cpu_seconds: stat.map(|stat| (stat.user_ticks + stat.system_ticks) / ticks),
            resident_bytes: stat.map(|stat| stat.resident_pages * page),
            virtual_bytes: stat.map(|stat| stat.virtual_bytes),
            virtual_bytes_max: limit(Resource::As),
            start_time_seconds: boot.zip(stat).map(|(boot, stat)| boot + stat.start_ticks / ticks),
            // Reading the folder opens it, which counts as well.
            open_files: std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as f64),
            open_files_max: limit(Resource::Nofile),
            network_received_bytes: received,
            network_transmitted_bytes: transmitted,
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(super) struct OwnStat {
        user_ticks: f64,
        system_ticks: f64,
        start_ticks: f64,
        virtual_bytes: f64,
        resident_pages: f64,
    }

    /// Reads `/proc/<pid>/stat`, proc_pid_stat(5). The second field is a name in parentheses that may hold anything.
    pub(super) fn own_stat(text: &str) -> Option<OwnStat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // The first of these is the third field of the manual.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(OwnStat {
            user_ticks: field(14)?,
            system_ticks: field(15)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }

    /// When the machine started, from `/proc/stat`, in seconds since the Unix epoch.
    pub(super) fn boot_time(text: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
    }

    /// The octets of IP that were received and sent, from `/proc/<pid>/net/netstat`: a line of names and a line of values
    /// for each protocol.
    pub(super) fn ip_octets(text: &str) -> (Option<f64>, Option<f64>) {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt:"));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return (None, None) };
        let value = |wanted: &str| {
            let at = names.split_ascii_whitespace().position(|name| name == wanted)?;
            values.split_ascii_whitespace().nth(at)?.parse().ok()
        };
        (value("InOctets"), value("OutOctets"))
    }

    /// The sums over all interfaces of `/proc/net/dev`, proc_pid_net(5).
    pub(super) fn interface_totals(text: &str) -> NetworkStats {
        let mut totals = NetworkStats::default();
        for (_, counters) in text.lines().filter_map(|line| line.split_once(':')) {
            let counters: Vec<f64> = counters.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect();
            totals.received_bytes += counters.first().unwrap_or(&0.0);
            totals.transmitted_bytes += counters.get(8).unwrap_or(&0.0);
        }
        totals
    }

    #[cfg(test)]
    mod tests {
        use proptest::prelude::*;

        use super::*;

        #[test]
        fn the_stat_of_a_process_with_a_strange_name_is_read() {
            let text = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 5 0 1234 8192 3 18446744073709551615 1\n";
            let expected = OwnStat {
                user_ticks: 250.0,
                system_ticks: 50.0,
                start_ticks: 1234.0,
                virtual_bytes: 8192.0,
                resident_pages: 3.0,
            };
            assert_eq!(own_stat(text), Some(expected));
            assert_eq!(own_stat("42 (a) S 1"), None);
        }

        #[test]
        fn boot_time_and_octets_are_found_among_the_rest() {
            assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nprocesses 3\n"), Some(1_700_000_000.0));
            let netstat = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 77 88\n";
            assert_eq!(ip_octets(netstat), (Some(77.0), Some(88.0)));
            assert_eq!(ip_octets("IpExt: InOctets\n"), (None, None));
        }

        #[test]
        fn interfaces_are_added_up() {
            let text = "Inter-|   Receive    |  Transmit\n face |bytes packets|bytes packets\n\
                        \x20   lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n  eth0: 5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n";
            assert_eq!(interface_totals(text), NetworkStats { received_bytes: 105.0, transmitted_bytes: 107.0 });
        }

        #[test]
        fn this_process_has_files_memory_and_an_age() {
            let stats = process_stats();
            assert!(stats.open_files.is_some_and(|count| count >= 1.0), "{stats:?}");
            assert!(stats.resident_bytes.is_some_and(|bytes| bytes > 100_000.0), "{stats:?}");
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            assert!(stats.start_time_seconds.is_some_and(|start| start <= now.as_secs_f64() + 1.0), "{stats:?}");
        }

        proptest! {
            #[test]
            fn no_text_makes_the_readers_panic(text in any::<String>(), numbers in "[0-9 ():a-zA-Z\n]{0,200}") {
                for text in [&text, &numbers] {
                    own_stat(text);
                    boot_time(text);
                    ip_octets(text);
                    interface_totals(text);
                }
            }
        }
    }
}
