//! Noticing that something changed in the file system.
//!
//! One watcher of the system serves the whole process, because systems allow few of them: every [`Watch`] asks it for the
//! folders that it is interested in, and a folder is watched as long as anybody is. What a watch says is a hint: whoever
//! has one looks again now and then, because network file systems tell of nothing, and a folder that comes back under
//! its old name is not watched until [`Watch::set`] is called again.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The most links on the way to a file, as systems have it.
const LINKS_MAX: usize = 40;

/// What somebody wants to be told of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interest {
    /// Anything that comes, goes or changes in a folder, but not in folders below it, and not its permissions.
    Folder(PathBuf),
    /// Whatever happens to what has this path. It does not have to exist, only its folder.
    Entry(PathBuf),
}

impl Interest {
    /// The folder to watch and the name to look for in it.
    ///
    /// A folder is watched under its real path, because the system takes two paths to one folder for the same watch.
    fn parts(&self) -> std::io::Result<(PathBuf, Option<OsString>)> {
        let absolute =
            |path: &Path| std::path::absolute(if path.as_os_str().is_empty() { Path::new(".") } else { path });
        let (folder, name) = match self {
            Interest::Folder(path) => (absolute(path)?, None),
            Interest::Entry(path) => {
                let path = absolute(path)?;
                let name = path.file_name().map(OsStr::to_owned);
                (path.parent().unwrap_or(&path).to_owned(), name)
            }
        };
        // One that does not exist cannot be watched either, and is told of by its name.
        Ok((folder.canonicalize().unwrap_or(folder), name))
    }
}

/// Every entry on the way to a file at which a change may lead to another file: the links, and the file itself, or what
/// is missing first.
///
/// This is what makes atomic replacement noticed, and the exchange of a whole folder behind a link, as Kubernetes does it
/// with the contents of a volume.
pub fn way(path: &Path) -> Vec<Interest> {
    let Ok(path) = std::path::absolute(path) else { return vec![Interest::Entry(path.to_owned())] };
    let mut found = Vec::new();
    let mut rest: VecDeque<OsString> = names(&path);
    let mut at: PathBuf = root(&path);
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let Ok(metadata) = std::fs::symlink_metadata(&next) else {
            found.push(Interest::Entry(next));
            return found;
        };
        if metadata.is_symlink()
            && let Ok(target) = std::fs::read_link(&next)
        {
            found.push(Interest::Entry(next));
            links += 1;
            if links > LINKS_MAX {
                return found;
            }
            if target.is_absolute() {
                at = root(&target);
            }
            for name in names(&target).into_iter().rev() {
                rest.push_front(name);
            }
            continue;
        }
        if rest.is_empty() {
            found.push(Interest::Entry(next));
            return found;
        }
        at = next;
    }
    found
}

fn root(path: &Path) -> PathBuf {
    path.components().take_while(|part| matches!(part, Component::Prefix(_) | Component::RootDir)).collect()
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        })
        .collect()
}

/// Tells of changes. It ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    id: u64,
    interests: Vec<(PathBuf, Option<OsString>)>,
    changed: Arc<Notify>,
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch {
    /// A watch that is interested in nothing yet.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Watch { id: NEXT.fetch_add(1, Ordering::Relaxed), interests: Vec::new(), changed: Arc::default() }
    }

    /// Is interested in just these from here on. Called again with the same, it takes up what was lost meanwhile: a folder
    /// that was removed and came back.
    ///
    /// Gives what cannot be watched, with the reason. Asks the system, and may therefore block for a moment.
    pub fn set(&mut self, interests: &[Interest]) -> Vec<String> {
        let mut errors = Vec::new();
        let mut parts = Vec::with_capacity(interests.len());
        for interest in interests {
            match interest.parts() {
                Ok(part) if !parts.contains(&part) => parts.push(part),
                Ok(_) => {}
                Err(error) => errors.push(error.to_string()),
            }
        }
        let before = std::mem::replace(&mut self.interests, parts);
        errors.extend(HUB.change(self.id, &self.changed, &before, &self.interests));
        errors
    }

    /// Waits until something happened. Several events may be told as one; none is lost between two calls.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        HUB.change(self.id, &self.changed, &self.interests, &[]);
    }
}

static HUB: LazyLock<Hub> = LazyLock::new(Hub::default);

/// Who is interested in what, and the one watcher.
///
/// The watcher's own thread takes the lock of the subscribers when something happens, so nobody holds that lock while
/// asking the watcher for anything.
#[derive(Default)]
struct Hub {
    watcher: Mutex<Option<RecommendedWatcher>>,
    folders: Arc<Mutex<Folders>>,
}

type Folders = HashMap<PathBuf, Vec<Subscriber>>;

struct Subscriber {
    id: u64,
    name: Option<OsString>,
    changed: Arc<Notify>,
}

impl Hub {
    fn change(
        &self,
        id: u64,
        changed: &Arc<Notify>,
        before: &[(PathBuf, Option<OsString>)],
        after: &[(PathBuf, Option<OsString>)],
    ) -> Vec<String> {
        // Held throughout, so that what is watched and who is interested change together.
        let mut watcher = self.watcher.lock();
        let mut gone: Vec<&PathBuf> = Vec::new();
        {
            let mut folders = self.folders.lock();
            for (folder, _) in before {
                if let Some(subscribers) = folders.get_mut(folder) {
                    subscribers.retain(|subscriber| subscriber.id != id);
                }
            }
            for (folder, name) in after {
                let subscriber = Subscriber { id, name: name.clone(), changed: Arc::clone(changed) };
                folders.entry(folder.clone()).or_default().push(subscriber);
            }
            for (folder, _) in before {
                if folders.get(folder).is_some_and(Vec::is_empty) {
                    folders.remove(folder);
                    gone.push(folder);
                }
            }
        }
        let mut errors = Vec::new();
        if watcher.is_none() && !after.is_empty() {
            match self.start() {
                Ok(started) => *watcher = Some(started),
                Err(error) => return vec![format!("failed to create watcher: {}", text(&error))],
            }
        }
        let Some(watcher) = watcher.as_mut() else { return errors };
        for folder in gone {
            // It is not watched any more if it was removed.
            let _ = watcher.unwatch(folder);
        }
        let mut asked: Vec<&PathBuf> = Vec::new();
        for (folder, _) in after {
            if asked.contains(&folder) {
                continue;
            }
            asked.push(folder);
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                errors.push(format!("failed to watch {}: {}", folder.display(), text(&error)));
            }
        }
        errors
    }

    fn start(&self) -> notify::Result<RecommendedWatcher> {
        let folders = Arc::clone(&self.folders);
        notify::recommended_watcher(move |event: notify::Result<Event>| tell(&folders.lock(), event.as_ref().ok()))
    }
}

/// An error of the watcher without the paths, which the caller knows.
fn text(error: &notify::Error) -> String {
    match &error.kind {
        notify::ErrorKind::Io(error) => crate::read::io_error_text(error),
        notify::ErrorKind::PathNotFound => "no such file or directory".to_owned(),
        notify::ErrorKind::MaxFilesWatch => "the system's limit of watches is reached".to_owned(),
        _ => error.to_string(),
    }
}

/// Tells everybody who is interested in an event; everybody at all if it is not known what happened.
fn tell(folders: &Folders, event: Option<&Event>) {
    let Some(event) = event.filter(|event| !event.need_rescan() && !event.paths.is_empty()) else {
        for subscriber in folders.values().flatten() {
            subscriber.changed.notify_one();
        }
        return;
    };
    let attributes = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        // That somebody reads is of no interest, and reading because of it would never end.
        EventKind::Access(_) => return,
        EventKind::Modify(ModifyKind::Metadata(_)) => true,
        _ => false,
    };
    for path in &event.paths {
        // Something in a folder that is watched.
        if let Some(subscribers) = path.parent().and_then(|folder| folders.get(folder)) {
            for subscriber in subscribers {
                let wanted = match &subscriber.name {
                    Some(name) => path.file_name() == Some(name),
                    None => !attributes,
                };
                if wanted {
                    subscriber.changed.notify_one();
                }
            }
        }
        // The folder itself, which may be gone.
        if let Some(subscribers) = folders.get(path).filter(|_| !attributes) {
            for subscriber in subscribers {
                subscriber.changed.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    async fn told(watch: &Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(60), watch.changed()).await.is_ok()
    }

    /// Takes what was told already.
    async fn quiet(watch: &Watch) {
        while tokio::time::timeout(Duration::from_millis(100), watch.changed()).await.is_ok() {}
    }

    #[tokio::test]
    async fn changes_in_a_folder_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new();
        assert_eq!(watch.set(&[Interest::Folder(dir.path().to_owned())]), [""; 0]);
        fs::write(dir.path().join("a"), "1").unwrap();
        assert!(told(&watch).await);
        quiet(&watch).await;
        fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert!(told(&watch).await);
        quiet(&watch).await;
        fs::remove_file(dir.path().join("b")).unwrap();
        assert!(told(&watch).await);
    }

    #[tokio::test]
    async fn an_entry_does_not_have_to_exist_and_others_are_of_no_interest() {
        let dir = tempfile::tempdir().unwrap();
        let (mut watch, mut other) = (Watch::new(), Watch::new());
        assert_eq!(watch.set(&[Interest::Entry(dir.path().join("a"))]), [""; 0]);
        assert_eq!(other.set(&[Interest::Entry(dir.path().join("b"))]), [""; 0]);
        fs::write(dir.path().join("b"), "1").unwrap();
        assert!(told(&other).await);
        // Events come in order: had there been one for the first watch, it would have come before.
        assert!(tokio::time::timeout(Duration::ZERO, watch.changed()).await.is_err());
        fs::write(dir.path().join("a"), "1").unwrap();
        assert!(told(&watch).await);
    }

    #[tokio::test]
    async fn a_folder_that_came_back_is_taken_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("f");
        fs::create_dir(&folder).unwrap();
        let mut watch = Watch::new();
        let interests = [Interest::Folder(folder.clone())];
        assert_eq!(watch.set(&interests), [""; 0]);
        fs::remove_dir(&folder).unwrap();
        assert!(told(&watch).await);
        let errors = watch.set(&interests);
        assert_eq!(errors, [format!("failed to watch {}: no such file or directory", folder.display())]);
        fs::create_dir(&folder).unwrap();
        assert_eq!(watch.set(&interests), [""; 0]);
        quiet(&watch).await;
        fs::write(folder.join("a"), "1").unwrap();
        assert!(told(&watch).await);
    }

    #[test]
    fn a_thousand_watches_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let folder = Interest::Folder(dir.path().to_owned());
        let mut kept = Watch::new();
        kept.set(&[folder.clone(), Interest::Entry(dir.path().join("x"))]);
        for n in 0..1_000 {
            let mut watch = Watch::new();
            assert_eq!(watch.set(&[folder.clone(), Interest::Entry(dir.path().join(n.to_string()))]), [""; 0]);
        }
        let left = HUB.folders.lock().get(&real).map(Vec::len);
        assert_eq!(left, Some(2));
        drop(kept);
        assert!(!HUB.folders.lock().contains_key(&real));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_folder_may_be_watched_under_two_names() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let (mut first, mut second) = (Watch::new(), Watch::new());
        assert_eq!(first.set(&[Interest::Folder(real.clone())]), [""; 0]);
        assert_eq!(second.set(&[Interest::Entry(link.join("a"))]), [""; 0]);
        fs::write(real.join("a"), "1").unwrap();
        assert!(told(&first).await && told(&second).await);
        quiet(&first).await;
        drop(second);
        fs::write(real.join("b"), "1").unwrap();
        assert!(told(&first).await);
    }

    #[cfg(unix)]
    #[test]
    fn the_way_to_a_file_leads_over_its_links() {
        use std::os::unix::fs::symlink;

        // As Kubernetes lays out a volume.
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("..2024")).unwrap();
        fs::write(root.join("..2024/key"), "1").unwrap();
        symlink("..2024", root.join("..data")).unwrap();
        symlink("..data/key", root.join("key")).unwrap();
        let entries = |names: &[&str]| names.iter().map(|name| Interest::Entry(root.join(name))).collect::<Vec<_>>();
        assert_eq!(way(&root.join("key")), entries(&["key", "..data", "..2024/key"]));
        assert_eq!(way(&root.join("missing/file")), entries(&["missing"]));
        assert_eq!(way(&root.join("..2024/../key")), entries(&["key", "..data", "..2024/key"]));
        symlink(root.join("loop"), root.join("loop")).unwrap();
        assert_eq!(way(&root.join("loop")).len(), LINKS_MAX + 1);
    }
}
