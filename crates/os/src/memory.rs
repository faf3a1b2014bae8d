//! The memory that the process has, and how much of it there may be.
//!
//! This module calls the C library, which is `unsafe`: it is the only one of the program that may.

/// How much memory the process has for its data, in bytes: what it allocated and what it freed and keeps, but not the files
/// that it has mapped, of which the program itself is one. Nothing where the system does not tell.
pub fn data_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        linux::data_bytes(&std::fs::read_to_string("/proc/self/status").ok()?)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// How much memory the process may have, in bytes: the least of what its control groups allow it and of what the machine
/// has. Nothing where the system does not tell.
pub fn bytes_max() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        linux::bytes_max()
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Gives memory back to the system that was freed and that the allocator keeps; `false` where the allocator cannot be asked.
/// It takes milliseconds for each hundred megabytes, and others that allocate meanwhile wait.
pub fn release_free() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the function has no preconditions: it locks the arenas of the allocator one by one, as `malloc` does, and
        // gives pages back that hold nothing. malloc_trim(3) calls it safe for threads.
        #[allow(unsafe_code)]
        unsafe {
            libc::malloc_trim(0);
        }
        true
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::read_to_string;
    use std::path::Path;

    /// From `/proc/<pid>/status`, proc_pid_status(5): anonymous memory, or all where kernels do not tell them apart.
    pub(super) fn data_bytes(status: &str) -> Option<u64> {
        let kilobytes = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()
        };
        kilobytes("RssAnon:").or_else(|| kilobytes("VmRSS:"))?.checked_mul(1024)
    }

    pub(super) fn bytes_max() -> Option<u64> {
        let groups = read_to_string("/proc/self/cgroup").ok();
        let allowed = groups.and_then(|groups| allowed(&groups, Path::new("/sys/fs/cgroup")));
        let machine = read_to_string("/proc/meminfo").ok().and_then(|text| machine_bytes(&text));
        allowed.into_iter().chain(machine).min()
    }

    /// From `/proc/meminfo`, proc_meminfo(5).
    pub(super) fn machine_bytes(text: &str) -> Option<u64> {
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        total.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
    }

    /// The least limit of the groups that `/proc/self/cgroup` names and of those that hold them, cgroups(7). In a container,
    /// the path may be the one outside, and the group's files lie at the root.
    pub(super) fn allowed(groups: &str, root: &Path) -> Option<u64> {
        let mut least = None::<u64>;
        let mut take = |folder: &Path, file: &str| {
            let limit = read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse::<u64>().ok());
            // Version 1 says that there is no limit with the greatest number of pages.
            let limit = limit.filter(|limit| *limit < 1 << 62);
            least = least.into_iter().chain(limit).min();
        };
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let (root, file) = match controllers {
                "" => (root.to_owned(), "memory.max"),
                _ if controllers.split(',').any(|name| name == "memory") => {
                    (root.join("memory"), "memory.limit_in_bytes")
                }
                _ => continue,
            };
            let path = path.trim_start_matches('/');
            if !Path::new(path).components().any(|part| part == std::path::Component::ParentDir) {
                for folder in Path::new(path).ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
                    take(&root.join(folder), file);
                }
            }
            take(&root, file);
        }
        least
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn anonymous_memory_is_read_and_all_of_it_where_there_is_nothing_else() {
            let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t    1024 kB\nRssFile:\t 1024 kB\n";
            assert_eq!(data_bytes(status), Some(1 << 20));
            assert_eq!(data_bytes("VmRSS:\t 2 kB\n"), Some(2048));
            assert_eq!(data_bytes("VmRSS:\t many kB\n"), None);
            assert_eq!(data_bytes("RssAnon: 18446744073709551615 kB"), None);
            assert_eq!(machine_bytes("MemFree: 1 kB\nMemTotal:       4 kB\n"), Some(4096));
        }

        #[test]
        fn the_least_limit_of_the_groups_counts() {
            let root = std::env::temp_dir().join(format!("corten-os-memory-{}", std::process::id()));
            let inner = root.join("a/b");
            std::fs::create_dir_all(&inner).unwrap();
            std::fs::write(inner.join("memory.max"), "max\n").unwrap();
            assert_eq!(allowed("0::/a/b\n", &root), None);
            std::fs::write(root.join("a/memory.max"), "4096\n").unwrap();
            assert_eq!(allowed("0::/a/b\n", &root), Some(4096));
            std::fs::write(inner.join("memory.max"), "1024\n").unwrap();
            assert_eq!(allowed("0::/a/b\n", &root), Some(1024));
            assert_eq!(allowed("0::/../elsewhere\n", &root), None);
            std::fs::create_dir_all(root.join("memory/x")).unwrap();
            std::fs::write(root.join("memory/x/memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
            assert_eq!(allowed("5:memory:/x\n", &root), None);
            std::fs::write(root.join("memory/memory.limit_in_bytes"), "7\n").unwrap();
            assert_eq!(allowed("5:cpu,memory:/not/here\n1:cpu:/\n", &root), Some(7));
            std::fs::remove_dir_all(&root).unwrap();
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_goes_back_to_the_system() {
        let before = data_bytes().unwrap();
        // Pieces so small that they are not mapped by themselves; the last one keeps the end of the heap in place.
        let mut pieces: Vec<Vec<u8>> = (0..16_384).map(|_| vec![1; 4096]).collect();
        assert!(data_bytes().unwrap() > before + (48 << 20));
        let last = pieces.pop();
        drop(pieces);
        if release_free() {
            assert!(data_bytes().unwrap() < before + (32 << 20));
        }
        drop(last);
        assert!(bytes_max().unwrap() > 1 << 20);
    }
}
