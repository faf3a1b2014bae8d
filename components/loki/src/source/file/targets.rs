//! From targets to files, each with the streams that its lines are entries of.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use corten_component::Logger;
use corten_component::targets::TargetState;
use corten_files::{Dialect, Pattern, io_error_text};
use corten_signal::target::{Target, TargetBuilder};
use corten_signal::{LabelsBuilder, Stream};

/// The label with the path, or the pattern, of a target.
const PATH: &str = "__path__";
/// The label with the pattern of what to leave out.
const PATH_EXCLUDE: &str = "__path_exclude__";
/// The label that lines get their file's path in.
const FILE_NAME: &str = "filename";

/// A file that is to be read.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// What its lines are entries of: one for each set of labels that somebody wants it with.
    pub(super) streams: Vec<Stream>,
    /// The sets of labels without the name of the file, as the reference writes them.
    pub(super) labels: Vec<String>,
    /// It is old: it is read on if it is being read, and not begun with.
    pub(super) only_if_open: bool,
    /// The number of the first target that wants it.
    pub(super) target: u32,
}

/// The files that are to be read.
pub(super) type WantedFiles = HashMap<Arc<str>, Wanted>;

/// What was found and is not read, or not for this target.
#[derive(Debug)]
pub(super) struct Aside {
    /// The path; empty where there is none.
    pub(super) path: String,
    pub(super) target: Target,
    pub(super) state: TargetState,
    pub(super) why: String,
}

/// How many of what is not read are kept for whoever looks, of each state. A pattern may leave out any number; how many there
/// are beyond these is told by a further one.
const ASIDE_MAX: usize = 1000;

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: WantedFiles,
    pub(super) aside: Vec<Aside>,
    /// The first problem that the user has to solve.
    pub(super) problem: Option<String>,
}

/// A search while it goes on.
#[derive(Default)]
struct Search {
    found: Found,
    /// How many there were of each state that are not read, and the target of the last of them.
    aside: BTreeMap<TargetState, (usize, Target)>,
}

impl Search {
    fn put_aside(&mut self, path: &str, target: &Target, state: TargetState, why: impl Into<String>) {
        let (count, last) = self.aside.entry(state).or_default();
        *count += 1;
        if *count <= ASIDE_MAX {
            self.found.aside.push(Aside { path: path.to_owned(), target: target.clone(), state, why: why.into() });
        } else {
            last.clone_from(target);
        }
    }

    /// What was found, and how much of it is not told one by one.
    fn end(mut self) -> Found {
        for (state, (count, target)) in self.aside {
            let Some(more) = count.checked_sub(ASIDE_MAX).filter(|more| *more > 0) else { continue };
            let (path, what) = (format!("… and {more} more"), state.as_str());
            let why = format!("{more} more are {what} and not listed: of {count}, the first {ASIDE_MAX} are");
            self.found.aside.push(Aside { path, target, state, why });
        }
        self.found
    }
}

/// Finds the files of targets.
#[derive(Debug)]
pub(super) struct Finder {
    targets: Vec<Target>,
    /// Nothing where paths stand for themselves.
    patterns: Option<Patterns>,
}

#[derive(Debug)]
struct Patterns {
    /// For each target: what to look for and what to leave out, or what is wrong with one of them.
    of_targets: Vec<Result<(Pattern, Option<Pattern>), String>>,
    ignore_older_than: Duration,
}

impl Finder {
    /// Of targets whose paths are patterns.
    pub(super) fn of_patterns(targets: Vec<Target>, ignore_older_than: Duration) -> Self {
        let of_targets = targets.iter().map(compile).collect();
        Finder { targets, patterns: Some(Patterns { of_targets, ignore_older_than }) }
    }

    /// Of targets whose paths stand for themselves.
    pub(super) fn of_paths(targets: Vec<Target>) -> Self {
        Finder { targets, patterns: None }
    }

    /// All files that there are to be read now, what is not read, and what the user has to solve.
    pub(super) fn find(&self, now: SystemTime, logger: &Logger) -> Found {
        let mut search = Search::default();
        for (place, target) in self.targets.iter().enumerate() {
            let path = target.get(PATH).unwrap_or_default();
            if path.is_empty() {
                search.put_aside("", target, TargetState::Refused, format!("the target has no label {PATH}"));
            }
            let Some(patterns) = &self.patterns else {
                if !path.is_empty() {
                    add(&mut search.found.files, (place, target), path, false);
                }
                continue;
            };
            match &patterns.of_targets[place] {
                Ok((pattern, exclude)) => {
                    let refused =
                        expand(&mut search, (place, target), pattern, exclude.as_ref(), patterns.oldest(now), logger);
                    if let Some(error) = refused {
                        let text = format!("error getting paths of {path:?}: {error}");
                        search.put_aside(path, target, TargetState::Refused, &text);
                        search.found.problem.get_or_insert(text);
                    }
                }
                Err(error) => {
                    logger.error("error getting paths", &[("path", path.into()), ("err", error.into())]);
                    let text = format!("error getting paths of {path:?}: {error}");
                    search.put_aside(path, target, TargetState::Refused, &text);
                    search.found.problem.get_or_insert(text);
                }
            }
        }
        search.end()
    }

    /// The target of a number.
    pub(super) fn target(&self, number: u32) -> Option<&Target> {
        self.targets.get(number as usize)
    }

    /// The targets with their paths, where those stand for themselves.
    pub(super) fn paths(&self) -> Option<impl Iterator<Item = (&Target, &str)>> {
        let paths = self.targets.iter().filter_map(|target| Some((target, target.get(PATH)?)));
        self.patterns.is_none().then(|| paths.filter(|(_, path)| !path.is_empty()))
    }
}

/// The labels of the lines of a file that a target wants.
pub(super) fn labels_of(target: &Target, path: &str) -> Option<Target> {
    let mut builder = TargetBuilder::new();
    builder.start_from(target);
    for (name, _) in target.iter().filter(|(name, _)| name.starts_with("__")) {
        builder.remove(name);
    }
    builder.set(FILE_NAME, path);
    builder.build().ok()
}

impl Patterns {
    fn oldest(&self, now: SystemTime) -> Option<SystemTime> {
        (!self.ignore_older_than.is_zero()).then(|| now.checked_sub(self.ignore_older_than)).flatten()
    }
}

fn compile(target: &Target) -> Result<(Pattern, Option<Pattern>), String> {
    let compiled = |text: &str| Pattern::new(text, Dialect::DoubleStar).map_err(|error| error.to_string());
    let path = compiled(target.get(PATH).unwrap_or_default())?;
    let exclude = target.get(PATH_EXCLUDE).filter(|exclude| !exclude.is_empty()).map(compiled).transpose()?;
    Ok((path, exclude))
}

/// Adds the files that match a target's pattern; what may not be looked into of what the pattern means.
fn expand(
    all: &mut Search,
    (place, target): (usize, &Target),
    pattern: &Pattern,
    exclude: Option<&Pattern>,
    oldest: Option<SystemTime>,
    logger: &Logger,
) -> Option<String> {
    let found = pattern.walk();
    let mut refused = found.refused;
    for path in found.paths {
        // Names that are no text cannot be a label.
        let Some(name) = path.to_str() else { continue };
        if exclude.is_some_and(|exclude| exclude.matches(name)) {
            all.put_aside(name, target, TargetState::Dropped, format!("left out by {PATH_EXCLUDE}"));
            continue;
        }
        let Ok(absolute) = std::path::absolute(&path) else { continue };
        let metadata = match std::fs::metadata(&absolute) {
            Ok(metadata) => metadata,
            Err(error) => {
                let path = absolute.display().to_string();
                if error.kind() == io::ErrorKind::PermissionDenied {
                    refused.get_or_insert_with(|| format!("stat {path}: {}", io_error_text(&error)));
                }
                all.put_aside(&path, target, TargetState::Refused, io_error_text(&error));
                logger.debug("left out", &[("path", path.into()), ("err", error.to_string().into())]);
                continue;
            }
        };
        if metadata.is_dir() {
            all.put_aside(name, target, TargetState::Dropped, "it is a folder");
            continue;
        }
        let is_old = oldest.is_some_and(|oldest| metadata.modified().is_ok_and(|changed| changed < oldest));
        if let Some(path) = absolute.to_str() {
            add(&mut all.found.files, (place, target), path, is_old);
            if is_old {
                all.put_aside(path, target, TargetState::Dropped, "last changed longer ago than ignore_older_than");
            }
        }
    }
    refused
}

fn add(files: &mut WantedFiles, (place, target): (usize, &Target), path: &str, is_old: bool) {
    let mut labels = LabelsBuilder::new();
    for (name, value) in target.iter().filter(|(name, _)| !name.starts_with("__") && *name != FILE_NAME) {
        labels.push(name, value);
    }
    let Ok(without) = Stream::new(&mut labels) else { return };
    labels.push(FILE_NAME, path);
    let Ok(stream) = Stream::new(&mut labels) else { return };
    let file = files.entry(path.into()).or_insert_with(|| Wanted {
        streams: Vec::new(),
        labels: Vec::new(),
        only_if_open: true,
        target: u32::try_from(place).unwrap_or(u32::MAX),
    });
    file.only_if_open &= is_old;
    if !file.streams.contains(&stream) {
        // There are many files, and most are wanted once.
        file.streams.reserve_exact(1);
        file.streams.push(stream);
        file.labels.reserve_exact(1);
        file.labels.push(without.canonical());
    }
}

#[cfg(test)]
mod tests {
    use corten_component::log::LogSink;

    use super::*;

    fn target(labels: &[(&str, &str)]) -> Target {
        Target::new(labels.iter().copied()).unwrap()
    }

    fn found(finder: &Finder) -> Vec<String> {
        let files = finder.find(SystemTime::now(), &Logger::new(LogSink::memory().0)).files;
        let mut lines: Vec<String> =
            files.values().flat_map(|file| &file.streams).map(|stream| stream.canonical()).collect();
        lines.sort();
        lines
    }

    #[test]
    fn internal_labels_are_left_out_and_the_name_of_the_file_always_counts() {
        let targets = vec![
            target(&[("__path__", "/a"), ("__meta_x", "1"), ("job", "j"), ("filename", "mine")]),
            target(&[("__path__", "/a"), ("job", "j")]),
            target(&[("__path__", "/a"), ("job", "k"), ("empty", "")]),
            target(&[("job", "no path")]),
        ];
        assert_eq!(
            found(&Finder::of_paths(targets)),
            [r#"{empty="", filename="/a", job="k"}"#, r#"{filename="/a", job="j"}"#]
        );
    }

    #[test]
    fn patterns_are_expanded_and_old_files_are_marked() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for name in ["a.log", "b.log", "c.txt"] {
            std::fs::write(path(name), "").unwrap();
        }
        std::fs::create_dir(path("d.log")).unwrap();
        let old = std::fs::File::create(path("old.log")).unwrap();
        old.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
        let targets = vec![
            target(&[("__path__", &path("*.log")), ("__path_exclude__", &path("b.*"))]),
            target(&[("__path__", "[")]),
        ];
        let finder = Finder::of_patterns(targets, Duration::from_secs(3600));
        let Found { files, aside, problem } = finder.find(SystemTime::now(), &Logger::new(LogSink::memory().0));
        assert_eq!(problem.as_deref(), Some("error getting paths of \"[\": syntax error in pattern"));
        let mut names: Vec<(&str, bool)> = files.iter().map(|(name, file)| (&**name, file.only_if_open)).collect();
        names.sort_unstable();
        assert_eq!(names, [(&*path("a.log"), false), (&*path("old.log"), true)]);
        let aside: Vec<_> =
            aside.iter().map(|aside| (aside.path.replace(&path(""), ""), aside.state, &*aside.why)).collect();
        assert_eq!(
            aside,
            [
                ("b.log".to_owned(), TargetState::Dropped, "left out by __path_exclude__"),
                ("d.log".to_owned(), TargetState::Dropped, "it is a folder"),
                ("old.log".to_owned(), TargetState::Dropped, "last changed longer ago than ignore_older_than"),
                ("[".to_owned(), TargetState::Refused, "error getting paths of \"[\": syntax error in pattern"),
            ]
        );
    }

    #[test]
    fn how_much_is_left_out_and_not_listed_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for at in 0..ASIDE_MAX + 2 {
            std::fs::write(dir.path().join(format!("{at:04}.old")), "").unwrap();
        }
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let aside = |exclude: &str| {
            let left_out = target(&[("__path__", &path("*")), ("__path_exclude__", &path(exclude)), ("job", "old")]);
            // What is refused is told however much is left out.
            let targets = vec![left_out, target(&[("job", "no path")])];
            let finder = Finder::of_patterns(targets, Duration::ZERO);
            finder.find(SystemTime::now(), &Logger::new(LogSink::memory().0)).aside
        };
        let found = aside("*.old");
        assert_eq!(found.len(), ASIDE_MAX + 2);
        assert_eq!(found[ASIDE_MAX].why, "the target has no label __path__");
        let more = &found[ASIDE_MAX + 1];
        assert_eq!(
            (&*more.path, more.state, more.target.get("job")),
            ("… and 2 more", TargetState::Dropped, Some("old"))
        );
        assert_eq!(more.why, "2 more are dropped and not listed: of 1002, the first 1000 are");
        // Where all are listed nothing is said.
        let all = aside("0[0-9][0-9][0-9].old");
        assert_eq!(all.len(), ASIDE_MAX + 1);
        assert!(all.iter().all(|aside| !aside.path.starts_with('…')));
    }
}
