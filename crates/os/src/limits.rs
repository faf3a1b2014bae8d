//! What the process may use.

/// The most worker threads that the process starts unless it is told otherwise.
const WORKER_THREADS_MAX: usize = 4;

/// How many threads run tasks: one for every two cores that the process may use, and four at most. Threads that share
/// little work wake each other up all the time: with two of them on two cores, scraping 100,000 series every five seconds
/// switched twice as often between threads as with one. What takes long runs elsewhere, and so does what blocks.
pub fn worker_threads() -> usize {
    (cores() / 2).clamp(1, WORKER_THREADS_MAX)
}

/// How many cores the process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Raises the limit on open files to the highest value that the process may set itself, as every server does that keeps
/// a connection a target. A limit that cannot be raised stays as it is.
pub fn raise_open_files_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            limit.current = limit.maximum;
            // Some systems refuse the value that they report: then what is there must do.
            let _ = setrlimit(Resource::Nofile, limit);
        }
    }
}

/// How many files and connections the process may have open; nothing where there is no limit, or none that is known.
pub fn open_files_limit() -> Option<usize> {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        limit.and_then(|limit| usize::try_from(limit).ok())
    }
    #[cfg(not(unix))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_one_to_four_worker_threads() {
        assert!((1..=WORKER_THREADS_MAX).contains(&worker_threads()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_limit_on_open_files_is_raised_to_the_highest() {
        raise_open_files_limit();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(open_files_limit().map(|limit| limit as u64), limit.current);
    }
}
