//! Being told of what happens to single files, where the system tells.
//!
//! A file is watched until something happens to it, once. Who wants to know of the next time asks again, so that a file
//! that is written to all the time costs nothing here.

use std::path::Path;

/// Tells when something happens to files.
#[derive(Debug)]
pub struct Wake(#[cfg(target_os = "linux")] Option<linux::Inotify>);

impl Default for Wake {
    fn default() -> Self {
        Self::new()
    }
}

impl Wake {
    /// Watches nothing yet. Where the system does not tell of changes, it never will.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    pub fn new() -> Self {
        #[cfg(target_os = "linux")]
        return Wake(linux::Inotify::new().ok());
        #[cfg(not(target_os = "linux"))]
        Wake()
    }

    /// Watches a file until it is written to, cut, renamed or deleted, or its permissions change; with a number that tells
    /// which. Whether it is watched: systems watch so many files at most, and not all of them.
    ///
    /// What happened before is not told: look at the file after this.
    pub fn watch(&self, path: &Path, token: u64) -> bool {
        #[cfg(target_os = "linux")]
        return self.0.as_ref().is_some_and(|inotify| inotify.watch(path, token));
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (path, token);
            false
        }
    }

    /// Tells no more of a file.
    pub fn forget(&self, token: u64) {
        #[cfg(target_os = "linux")]
        if let Some(inotify) = &self.0 {
            inotify.forget(token);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = token;
    }

    /// Waits until something happened to files, and gives their numbers. Each of them is not watched any more.
    pub async fn woken(&self) -> Vec<u64> {
        #[cfg(target_os = "linux")]
        if let Some(inotify) = &self.0 {
            return inotify.woken().await;
        }
        std::future::pending().await
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
    use rustix::io::Errno;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// How much is read of what happened at once, in bytes.
    const EVENT_BYTES: usize = 16 << 10;

    #[derive(Debug)]
    pub(super) struct Inotify {
        fd: AsyncFd<OwnedFd>,
        watched: Mutex<Watched>,
    }

    #[derive(Debug, Default)]
    struct Watched {
        /// By the number of the watch: several names of a file have one watch.
        tokens: HashMap<i32, Vec<u64>>,
        watches: HashMap<u64, i32>,
    }

    impl Watched {
        fn take(&mut self, watch: i32, into: &mut Vec<u64>) {
            for token in self.tokens.remove(&watch).unwrap_or_default() {
                self.watches.remove(&token);
                into.push(token);
            }
        }

        /// Whether nobody wants to know of the watch any more.
        fn remove(&mut self, token: u64) -> Option<i32> {
            let watch = self.watches.remove(&token)?;
            let tokens = self.tokens.get_mut(&watch)?;
            tokens.retain(|have| *have != token);
            if !tokens.is_empty() {
                return None;
            }
            self.tokens.remove(&watch);
            Some(watch)
        }
    }

    impl Inotify {
        pub(super) fn new() -> std::io::Result<Self> {
            let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            #[expect(
                deprecated,
                reason = "it is unsound for what closes its handle by itself, which an owned one does not"
            )]
            let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
            Ok(Inotify { fd, watched: Mutex::default() })
        }

        fn watched(&self) -> MutexGuard<'_, Watched> {
            self.watched.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(super) fn watch(&self, path: &Path, token: u64) -> bool {
            let what = WatchFlags::MODIFY
                | WatchFlags::ATTRIB
                | WatchFlags::MOVE_SELF
                | WatchFlags::DELETE_SELF
                | WatchFlags::ONESHOT;
            // Locked before the system is asked, so that what it tells at once is not about an unknown watch.
            let mut watched = self.watched();
            let Ok(watch) = inotify::add_watch(self.fd.get_ref(), path, what) else { return false };
            if watched.watches.get(&token).is_some_and(|before| *before != watch)
                && let Some(before) = watched.remove(token)
            {
                let _ = inotify::remove_watch(self.fd.get_ref(), before);
            }
            if watched.watches.insert(token, watch).is_none() {
                watched.tokens.entry(watch).or_default().push(token);
            }
            true
        }

        pub(super) fn forget(&self, token: u64) {
            if let Some(watch) = self.watched().remove(token) {
                // It may have ended by itself.
                let _ = inotify::remove_watch(self.fd.get_ref(), watch);
            }
        }

        pub(super) async fn woken(&self) -> Vec<u64> {
            let mut woken = Vec::new();
            while woken.is_empty() {
                let Ok(mut ready) = self.fd.readable().await else { return std::future::pending().await };
                let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
                let mut reader = Reader::new(self.fd.get_ref(), &mut buffer);
                loop {
                    match reader.next() {
                        Ok(event) => {
                            let mut watched = self.watched();
                            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                                // Something happened to anything.
                                let all: Vec<i32> = watched.tokens.keys().copied().collect();
                                all.into_iter().for_each(|watch| watched.take(watch, &mut woken));
                            } else {
                                watched.take(event.wd(), &mut woken);
                            }
                        }
                        Err(Errno::INTR) => {}
                        Err(_) => {
                            ready.clear_ready();
                            break;
                        }
                    }
                    // The rest is there the next time.
                    if reader.is_buffer_empty() && !woken.is_empty() {
                        break;
                    }
                }
            }
            woken
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("corten-wake-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn write(&self, name: &str) -> PathBuf {
            let path = self.0.join(name);
            OpenOptions::new().create(true).append(true).open(&path).unwrap().write_all(b"x").unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    async fn woken(wake: &Wake) -> Vec<u64> {
        let mut woken = tokio::time::timeout(Duration::from_secs(10), wake.woken()).await.expect("it is told");
        woken.sort_unstable();
        woken
    }

    async fn is_quiet(wake: &Wake) -> bool {
        tokio::time::timeout(Duration::from_millis(50), wake.woken()).await.is_err()
    }

    #[tokio::test]
    async fn a_file_tells_once_of_whatever_happens_to_it() {
        let folder = Folder::new("once");
        let wake = Wake::new();
        let path = folder.write("a");
        assert!(!wake.watch(&folder.0.join("nothing"), 1));
        let writes = |folder: &Folder| drop(folder.write("a"));
        let renames = |folder: &Folder| {
            fs::rename(folder.0.join("a"), folder.0.join("b")).unwrap();
            fs::rename(folder.0.join("b"), folder.0.join("a")).unwrap();
        };
        let cuts = |folder: &Folder| {
            OpenOptions::new().write(true).open(folder.0.join("a")).unwrap().set_len(0).unwrap();
        };
        let removes = |folder: &Folder| fs::remove_file(folder.0.join("a")).unwrap();
        let all: [&dyn Fn(&Folder); 4] = [&writes, &renames, &cuts, &removes];
        for happens in all {
            assert!(wake.watch(&path, 7));
            assert!(is_quiet(&wake).await);
            happens(&folder);
            assert_eq!(woken(&wake).await, [7]);
            assert!(is_quiet(&wake).await);
        }
    }

    #[tokio::test]
    async fn names_of_one_file_are_all_told_and_what_is_forgotten_is_not() {
        let folder = Folder::new("names");
        let wake = Wake::new();
        let path = folder.write("a");
        let other = folder.0.join("b");
        fs::hard_link(&path, &other).unwrap();
        for token in [1, 2, 3] {
            assert!(wake.watch(if token == 2 { &other } else { &path }, token));
        }
        wake.forget(3);
        folder.write("a");
        assert_eq!(woken(&wake).await, [1, 2]);
        assert!(wake.watch(&path, 1));
        wake.forget(1);
        folder.write("a");
        assert!(is_quiet(&wake).await);
        // A name that leads to another file now.
        assert!(wake.watch(&path, 1));
        fs::remove_file(&path).unwrap();
        let _ = woken(&wake).await;
        folder.write("a");
        assert!(wake.watch(&path, 1));
        folder.write("a");
        assert_eq!(woken(&wake).await, [1]);
    }
}
