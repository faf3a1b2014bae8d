//! `local.file_match`: the files that match patterns, as targets.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, io};

use corten_component::log::rfc3339;
use corten_component::targets::{LastTime, ShownTarget, TargetState, TargetView};
use corten_component::{Component, Context, DebugInfo, Error, Health, HealthState, Logger, Stop, Task, Turn};
use corten_config::encode::Item;
use corten_config::{Arguments, CheckErrors, Exports, Value};
use corten_files::glob::FOUND_MAX;
use corten_files::{Dialect, Pattern, io_error_text};
use corten_signal::target::{Target, TargetBuilder};
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

/// The label with the pattern of a target, and with the path of what it found.
const PATH: &str = "__path__";
/// The label with the pattern of what to leave out.
const PATH_EXCLUDE: &str = "__path_exclude__";

/// Finds the files that match patterns, and exports a target for each.
///
/// Patterns are in the dialect of [doublestar](https://github.com/bmatcuk/doublestar): `*` and `?` stand for any
/// characters but a slash, `**` as a whole segment for any number of folders, `[abc]` and `[^abc]` for one of some
/// characters, `{a,b}` for alternatives, and `\` takes the meaning of a sign away. Links are followed.
///
/// Targets come in the order of `path_targets`, and for each sorted by path. A pattern that is wrong finds nothing and
/// makes the component unhealthy, and so do a folder that the pattern says by name and a file that was found, if they may
/// not be looked into.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// What to look for. Each target has a pattern in its label `__path__`, may have a pattern of what to leave out in
    /// `__path_exclude__`, and any further labels, which every file that it finds gets as well.
    path_targets: Vec<Target>,
    /// How often to look.
    #[arg(default = "10s")]
    sync_period: Duration,
    /// Leaves out files that were last changed longer ago than this; `0s` leaves out none.
    #[arg(default = "0s")]
    ignore_older_than: Duration,
}

impl Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(!self.sync_period.is_zero(), &["sync_period"], "sync_period must be greater than 0");
        errors.into_result()
    }
}

/// What `local.file_match` exports.
#[derive(Exports, Clone, Debug, Default, PartialEq)]
pub struct Offer {
    /// A target for each file, with its absolute path in `__path__` and the labels of the target that found it.
    targets: Vec<Target>,
}

/// The component.
#[derive(Debug)]
pub struct FileMatch {
    walks: Arc<Walks>,
    turn: Turn<Self>,
    task: Task,
    /// What was exported last, under whatever arguments.
    latest: Latest,
}

type Latest = Arc<Mutex<Offer>>;

impl Component for FileMatch {
    const NAME: &'static str = "local.file_match";
    type Arguments = Config;
    type Exports = Offer;
    type Prepared = Config;

    async fn prepare(config: Config, _: &Context<Self>, current: Option<&Self>) -> Result<(Config, Offer), Error> {
        // Nobody waits for a slow file system. Until the first walk is done, what was found before stays.
        let offer = current.map(|current| current.latest.lock().clone()).unwrap_or_default();
        Ok((config, offer))
    }

    fn commit(current: Option<Self>, config: Config, cx: &Context<Self>) -> Self {
        let turn = current.as_ref().map_or_else(|| Turn::first(cx), |current| current.turn.next());
        let latest = current.as_ref().map_or_else(Latest::default, |current| Arc::clone(&current.latest));
        let walks = current.as_ref().map_or_else(
            || {
                let walks = Arc::new(Walks { latest: Arc::clone(&latest), ..Walks::default() });
                cx.show_debug_info(Arc::clone(&walks) as Arc<dyn DebugInfo>);
                walks
            },
            |current| Arc::clone(&current.walks),
        );
        turn.export(&latest.lock());
        let finder = Arc::new(Finder::new(config, cx.logger().clone()));
        let (own, shared, told) = (turn.clone(), Arc::clone(&latest), Arc::clone(&walks));
        let task = cx.spawn("sync", move |stop| {
            run(Arc::clone(&finder), own.clone(), Arc::clone(&shared), Arc::clone(&told), stop)
        });
        FileMatch { walks, turn, task, latest }
    }

    async fn drain(self, _: &Context<Self>) {
        self.task.stop().await;
    }
}

/// What the last walk found for each target, for whoever looks.
#[derive(Debug, Default)]
struct Walks {
    each: Mutex<Vec<Walk>>,
    /// What was found and left out, and what could not be looked for.
    aside: Mutex<Vec<Arc<Aside>>>,
    /// What was found and is handed on.
    latest: Latest,
    /// When the walk began.
    began: Mutex<Option<SystemTime>>,
}

/// What was left out.
#[derive(Debug)]
struct Aside {
    /// The path, or the pattern that finds nothing.
    path: String,
    target: Target,
    state: TargetState,
    why: String,
}

/// How many of what was left out are kept for whoever looks. A pattern may leave out any number.
const ASIDE_MAX: usize = 1000;

impl ShownTarget for Aside {
    fn state(&self) -> TargetState {
        self.state
    }

    fn url(&self) -> &str {
        &self.path
    }

    fn discovered(&self) -> &Target {
        &self.target
    }

    fn labels(&self) -> Option<&Target> {
        None
    }

    fn last(&self) -> LastTime {
        LastTime { error: Some(self.why.clone()), ..LastTime::default() }
    }
}

/// A file that was found.
struct FoundFile {
    target: Target,
    at: Option<SystemTime>,
}

impl ShownTarget for FoundFile {
    fn state(&self) -> TargetState {
        TargetState::Found
    }

    fn url(&self) -> &str {
        self.target.get(PATH).unwrap_or_default()
    }

    fn discovered(&self) -> &Target {
        &self.target
    }

    fn labels(&self) -> Option<&Target> {
        Some(&self.target)
    }

    fn last(&self) -> LastTime {
        LastTime { at: self.at, ..LastTime::default() }
    }
}

impl TargetView for Walks {
    fn targets(&self) -> Vec<Arc<dyn ShownTarget>> {
        let at = *self.began.lock();
        let found = self.latest.lock();
        let found = found.targets.iter().map(|target| FoundFile { target: target.clone(), at });
        let found = found.map(|found| Arc::new(found) as Arc<dyn ShownTarget>);
        let aside = self.aside.lock();
        found.chain(aside.iter().map(|aside| Arc::clone(aside) as Arc<dyn ShownTarget>)).collect()
    }
}

/// What was found for a target.
#[derive(Clone, Debug)]
struct Walk {
    path: String,
    exclude: String,
    found: u64,
    /// What was left out: by the second pattern, because it is no file, and because it was changed too long ago.
    excluded: u64,
    folders: u64,
    too_old: u64,
    began: SystemTime,
    took: Duration,
    error: Option<String>,
}

impl DebugInfo for Walks {
    fn debug_info(&self) -> Vec<Item> {
        let attr = |name: &str, value: Value| Item::Attr { name: name.to_owned(), value };
        let shown = |walk: &Walk| {
            let mut body = vec![
                attr("path", Value::from(walk.path.as_str())),
                attr("path_exclude", Value::from(walk.exclude.as_str())),
                attr("found", Value::from(walk.found)),
                attr("excluded", Value::from(walk.excluded)),
                attr("folders", Value::from(walk.folders)),
                attr("too_old", Value::from(walk.too_old)),
                attr("last_walk_at", Value::from(rfc3339(walk.began))),
                attr("last_walk_seconds", Value::from(walk.took.as_secs_f64())),
            ];
            if let Some(error) = &walk.error {
                body.push(attr("last_error", Value::from(error.as_str())));
            }
            Item::Block { name: "patterns_info".to_owned(), label: None, body }
        };
        self.each.lock().iter().map(shown).collect()
    }

    fn targets(&self) -> Option<&dyn TargetView> {
        Some(self)
    }
}

async fn run(
    finder: Arc<Finder>,
    turn: Turn<FileMatch>,
    latest: Latest,
    walks: Arc<Walks>,
    mut stop: Stop,
) -> Result<(), String> {
    let mut sync = interval(finder.sync_period);
    sync.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.wait() => return Ok(()),
            _ = sync.tick() => {}
        }
        let began = SystemTime::now();
        let walking = tokio::task::spawn_blocking({
            let finder = Arc::clone(&finder);
            let before = latest.lock().clone();
            move || finder.find(began, &before.targets)
        });
        let found = tokio::select! {
            () = stop.wait() => return Ok(()),
            found = walking => found.map_err(|error| error.to_string())?,
        };
        let FoundFiles { offer, walks: walked, aside, problem } = found;
        turn.speak(|cx| {
            *walks.began.lock() = Some(began);
            *walks.each.lock() = walked;
            *walks.aside.lock() = aside;
            // Whoever got the equal targets before keeps them: one copy is enough, and to write many down takes room.
            let is_new = *latest.lock() != offer;
            if is_new {
                cx.export(&offer);
                *latest.lock() = offer;
            }
            cx.report_health(problem.map(|problem| Health::now(HealthState::Unhealthy, problem)));
        });
    }
}

/// What a walk found.
struct FoundFiles {
    offer: Offer,
    walks: Vec<Walk>,
    aside: Vec<Arc<Aside>>,
    /// The first problem that the user has to solve.
    problem: Option<String>,
}

/// How many targets whoever looks is shown.
const WALKS_SHOWN_MAX: usize = 1000;

/// Finds files. It is made once for a set of arguments.
struct Finder {
    sync_period: Duration,
    ignore_older_than: Duration,
    wanted: Vec<Wanted>,
    logger: Logger,
}

struct Wanted {
    target: Target,
    path: String,
    exclude: String,
    /// The compiled patterns, or what is wrong with one of them.
    patterns: Result<(Pattern, Option<Pattern>), String>,
}

impl Finder {
    fn new(config: Config, logger: Logger) -> Self {
        Finder {
            sync_period: config.sync_period,
            ignore_older_than: config.ignore_older_than,
            wanted: config.path_targets.into_iter().map(Wanted::new).collect(),
            logger,
        }
    }

    /// All that there is now.
    ///
    /// What is as it was before, in the same place, is not kept twice.
    fn find(&self, now: SystemTime, before: &[Target]) -> FoundFiles {
        let oldest = (!self.ignore_older_than.is_zero()).then(|| now.checked_sub(self.ignore_older_than)).flatten();
        let mut targets = Vec::new();
        let mut walks = Vec::with_capacity(self.wanted.len());
        let mut problem = None;
        let mut aside = Vec::new();
        for wanted in &self.wanted {
            let (started, before_it) = (Instant::now(), targets.len());
            let mut walk = match &wanted.patterns {
                Ok((pattern, exclude)) => {
                    let mut into = Gathered { before, targets: &mut targets, aside: &mut aside };
                    self.expand(wanted, pattern, exclude.as_ref(), oldest, &mut into)
                }
                Err(error) => {
                    self.complain(wanted, error);
                    let error = Some(format!("error getting paths of {}: {error}", shown(&wanted.path)));
                    Walk { error, ..Walk::new(wanted) }
                }
            };
            walk.took = started.elapsed();
            walk.found = (targets.len() - before_it) as u64;
            let wrong = walk.error.clone();
            let wrong = wrong.or_else(|| wanted.path.is_empty().then(|| format!("the target has no label {PATH}")));
            if let Some(why) = wrong {
                put_aside(&mut aside, wanted, &wanted.path, TargetState::Refused, &why);
            }
            problem = problem.or_else(|| walk.error.clone());
            if walks.len() < WALKS_SHOWN_MAX {
                walks.push(walk);
            }
        }
        targets.shrink_to_fit();
        FoundFiles { offer: Offer { targets }, walks, aside, problem }
    }

    /// Adds the targets of the files that one target asks for.
    fn expand(
        &self,
        wanted: &Wanted,
        pattern: &Pattern,
        exclude: Option<&Pattern>,
        oldest: Option<SystemTime>,
        into: &mut Gathered<'_>,
    ) -> Walk {
        let Gathered { before, targets, aside } = into;
        let mut walk = Walk::new(wanted);
        let mut builder = TargetBuilder::new();
        let mut refused = None;
        let found = pattern.walk_each(&mut |path| {
            // Names that are no text were left out already.
            let Some(name) = path.to_str() else { return };
            if exclude.is_some_and(|exclude| exclude.matches(name)) {
                walk.excluded += 1;
                let why = format_args!("left out by {PATH_EXCLUDE}");
                put_aside(aside, wanted, name, TargetState::Dropped, &why);
                return;
            }
            let failed = |step: &str, path: &Path, error: &std::io::Error| {
                let path = path.display().to_string();
                self.logger.error(step, &[("path", path.into()), ("err", error.to_string().into())]);
            };
            let absolute = match std::path::absolute(&path) {
                Ok(absolute) => absolute,
                Err(error) => {
                    failed("error getting absolute path", &path, &error);
                    return;
                }
            };
            let metadata = match std::fs::metadata(&absolute) {
                Ok(metadata) => metadata,
                Err(error) => {
                    failed("error getting os stat", &absolute, &error);
                    put_aside(aside, wanted, name, TargetState::Refused, &io_error_text(&error));
                    if error.kind() == io::ErrorKind::PermissionDenied {
                        refused
                            .get_or_insert_with(|| format!("stat {}: {}", absolute.display(), io_error_text(&error)));
                    }
                    return;
                }
            };
            let is_old = oldest.is_some_and(|oldest| metadata.modified().is_ok_and(|changed| changed < oldest));
            if metadata.is_dir() || is_old {
                *(if metadata.is_dir() { &mut walk.folders } else { &mut walk.too_old }) += 1;
                let why =
                    if metadata.is_dir() { "it is a folder" } else { "last changed longer ago than ignore_older_than" };
                put_aside(aside, wanted, name, TargetState::Dropped, &why);
                return;
            }
            if let Some(target) = with_path(&wanted.target, &absolute, &mut builder) {
                let same = before.get(targets.len()).filter(|before| **before == target);
                targets.push(same.cloned().unwrap_or(target));
            }
        });
        for error in &found.errors {
            // What may not be read is left out, as it always was; whoever misses a file finds the reason.
            self.logger.debug("left out while getting paths", &[("err", error.into())]);
        }
        let problem = if found.truncated {
            let error = format!("more than the limit of {FOUND_MAX} paths match");
            self.complain(wanted, &error);
            Some(error)
        } else {
            found.refused.or(refused)
        };
        walk.error = problem.map(|error| format!("error getting paths of {}: {error}", shown(&wanted.path)));
        walk
    }

    fn complain(&self, wanted: &Wanted, error: &str) {
        let fields = [("path", (&wanted.path).into()), ("excluded", (&wanted.exclude).into()), ("err", error.into())];
        self.logger.error("error getting paths", &fields);
    }
}

/// Where what is found goes.
struct Gathered<'a> {
    /// What was found before.
    before: &'a [Target],
    targets: &'a mut Vec<Target>,
    aside: &'a mut Vec<Arc<Aside>>,
}

fn put_aside(aside: &mut Vec<Arc<Aside>>, wanted: &Wanted, path: &str, state: TargetState, why: &dyn fmt::Display) {
    if aside.len() < ASIDE_MAX {
        let (path, target, why) = (path.to_owned(), wanted.target.clone(), why.to_string());
        aside.push(Arc::new(Aside { path, target, state, why }));
    }
}

impl Walk {
    fn new(wanted: &Wanted) -> Self {
        Walk {
            path: wanted.path.clone(),
            exclude: wanted.exclude.clone(),
            found: 0,
            excluded: 0,
            folders: 0,
            too_old: 0,
            began: SystemTime::now(),
            took: Duration::ZERO,
            error: None,
        }
    }
}

impl Wanted {
    fn new(target: Target) -> Self {
        let path = target.get(PATH).unwrap_or_default().to_owned();
        let exclude = target.get(PATH_EXCLUDE).unwrap_or_default().to_owned();
        let compile = |text: &str| Pattern::new(text, Dialect::DoubleStar).map_err(|error| error.to_string());
        let excluded = if exclude.is_empty() { Ok(None) } else { compile(&exclude).map(Some) };
        let patterns = compile(&path).and_then(|path| Ok((path, excluded?)));
        Wanted { target, path, exclude, patterns }
    }
}

/// A target with another path. Nothing if its labels are too long to be a target.
fn with_path(target: &Target, path: &Path, builder: &mut TargetBuilder) -> Option<Target> {
    builder.start_from(target);
    builder.set(PATH, path.to_str()?);
    builder.build().ok()
}

fn shown(text: &str) -> String {
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use corten_component::Definition;
    use corten_testkit::{Unit, World, host, labels, load, until};

    use super::*;

    const DEFINITION: Definition = Definition::of::<FileMatch>();

    /// The argument for targets, each with its labels.
    fn targets(of: &[&[(&str, String)]]) -> String {
        let target = |labels: &&[(&str, String)]| {
            let fields: Vec<String> = labels.iter().map(|(name, value)| format!("{name:?} = {value:?}")).collect();
            format!("{{ {} }}", fields.join(", "))
        };
        format!("path_targets = [{}]", of.iter().map(target).collect::<Vec<_>>().join(", "))
    }

    fn below(world: &World, pattern: &str) -> String {
        world.path(pattern).to_str().unwrap().to_owned()
    }

    /// The exported targets, paths relative to the world's folder.
    fn found(world: &World) -> Vec<String> {
        let root = format!("{}/", world.path("").to_str().unwrap().trim_end_matches('/'));
        let exports = world.exports();
        let targets = exports.last().and_then(|exports| exports.field("targets"));
        targets.map_or_else(Vec::new, |targets| labels(&targets)).iter().map(|line| line.replace(&root, "")).collect()
    }

    /// The exported paths.
    fn paths(world: &World) -> String {
        let path = |line: &String| {
            let word = line.split(' ').find_map(|word| word.strip_prefix("__path__="));
            word.unwrap_or_default().to_owned()
        };
        found(world).iter().map(path).collect::<Vec<_>>().join(" ")
    }

    async fn until_paths(world: &World, expected: &str) {
        until(&format!("the paths are {expected}"), || paths(world) == expected).await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_looks_sees_what_the_last_walk_found_and_left_out() {
        let world = host("local.file_match.x");
        for name in ["a.log", "b.log", "d.log/c"] {
            world.write(name, "");
        }
        let path = [(PATH, below(&world, "*.log")), (PATH_EXCLUDE, "**/b.*".to_owned())];
        let bad = [(PATH, "[".to_owned())];
        let unit = Unit::start(world.clone(), &DEFINITION, &targets(&[&path, &bad])).await.unwrap();
        let shown = || {
            let info = world.host().debug_info.lock().clone();
            let text = |item: Item| match item {
                Item::Block { body, .. } => body
                    .into_iter()
                    .filter_map(|item| match item {
                        Item::Attr { name, value } if !name.starts_with("last_walk") => {
                            Some(format!("{name}={value} "))
                        }
                        _ => None,
                    })
                    .collect::<String>(),
                Item::Attr { .. } => String::new(),
            };
            info.map_or_else(Vec::new, |info| info.debug_info()).into_iter().map(text).collect::<Vec<_>>()
        };
        until("it has walked", || shown().len() == 2).await;
        let shown = shown();
        assert!(shown[0].ends_with("found=1 excluded=1 folders=1 too_old=0 "), "{shown:?}");
        assert!(shown[1].contains("found=0") && shown[1].contains("last_error="), "{shown:?}");
        let info = world.host().debug_info.lock().clone().unwrap();
        let root = below(&world, "");
        let target = |target: &Arc<dyn ShownTarget>| {
            let error = target.last().error.unwrap_or_default();
            format!("{} {}: {error}", target.state().as_str(), target.url().replace(&root, ""))
        };
        let targets = info.targets().unwrap().targets();
        let targets: Vec<String> = targets.iter().map(target).collect();
        assert_eq!(
            targets,
            [
                "found a.log: ",
                "dropped b.log: left out by __path_exclude__",
                "dropped d.log: it is a folder",
                "refused [: error getting paths of \"[\": syntax error in pattern",
            ]
        );
        drop(unit);
    }

    #[tokio::test(start_paused = true)]
    async fn patterns_find_files_in_order() {
        let world = host("local.file_match.x");
        for name in ["b.log", "a.log", "c.txt", "d/e.log", "d/f/g.log", ".h.log", "d/.i/j.log"] {
            world.write(name, "");
        }
        fs::create_dir(world.path("folder.log")).unwrap();
        // `$` stands for the world's folder.
        for (pattern, exclude, expected) in [
            ("$/*.log", "", ".h.log a.log b.log"),
            ("$/**/*.log", "", ".h.log a.log b.log d/.i/j.log d/e.log d/f/g.log"),
            ("$/**/*.log", "**/d/**", ".h.log a.log b.log"),
            ("$/**/*.log", "$/d/*.log", ".h.log a.log b.log d/.i/j.log d/f/g.log"),
            ("$/{a,c}.{log,txt}", "", "a.log c.txt"),
            ("$/d/**", "", "d/.i/j.log d/e.log d/f/g.log"),
            ("$/d/*", "", "d/e.log"),
            ("$/[!a].log", "", "b.log"),
            ("$/a.log", "", "a.log"),
            ("$/d/../a.log", "", "a.log"),
            ("$/*.log", "{$/.h.log,**/b.*}", "a.log"),
            ("$/nothing", "", ""),
        ] {
            let rooted = |text: &str| text.replace('$', world.path("").to_str().unwrap().trim_end_matches('/'));
            let labels = [("__path__", rooted(pattern)), ("__path_exclude__", rooted(exclude))];
            let mut unit = Unit::start(world.clone(), &DEFINITION, &targets(&[&labels])).await.unwrap();
            until_paths(&world, expected).await;
            unit.drain().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn labels_are_kept_and_the_exclusion_as_well() {
        let world = host("local.file_match.x");
        world.write("a.log", "");
        world.write("b.log", "");
        let first = [
            ("__path__", below(&world, "*.log")),
            ("__path_exclude__", below(&world, "b.*")),
            ("job", "one".to_owned()),
        ];
        let second = [("__path__", below(&world, "*.log")), ("job", "two".to_owned())];
        let _unit = Unit::start(world.clone(), &DEFINITION, &targets(&[&first, &second])).await.unwrap();
        // The order is that of the targets, and what two of them find stands twice.
        let expected =
            ["__path__=a.log __path_exclude__=b.* job=one", "__path__=a.log job=two", "__path__=b.log job=two"];
        until("all are found", || found(&world) == expected).await;
    }

    #[tokio::test(start_paused = true)]
    async fn files_come_and_go_with_each_sync() {
        let world = host("local.file_match.x");
        world.write("a.log", "");
        let text = format!("{}\nsync_period = \"1m\"", targets(&[&[("__path__", below(&world, "*.log"))]]));
        let _unit = Unit::start(world.clone(), &DEFINITION, &text).await.unwrap();
        until_paths(&world, "a.log").await;
        let started = tokio::time::Instant::now();
        world.write("b.log", "");
        until_paths(&world, "a.log b.log").await;
        fs::remove_file(world.path("a.log")).unwrap();
        until_paths(&world, "b.log").await;
        assert!((119..=121).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn old_files_are_left_out() {
        let world = host("local.file_match.x");
        let old = fs::File::create(world.path("old.log")).unwrap();
        old.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
        world.write("new.log", "");
        let pattern = targets(&[&[("__path__", below(&world, "*.log"))]]);
        let text = format!("{pattern}\nignore_older_than = \"1h\"");
        let mut unit = Unit::start(world.clone(), &DEFINITION, &text).await.unwrap();
        until_paths(&world, "new.log").await;
        unit.update(&pattern).await.unwrap();
        until_paths(&world, "new.log old.log").await;
        // Longer ago than there is time.
        unit.update(&format!("{pattern}\nignore_older_than = \"2000000h\"")).await.unwrap();
        until_paths(&world, "new.log old.log").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_pattern_that_is_wrong_finds_nothing_and_says_so() {
        let world = host("local.file_match.x");
        world.write("a.log", "");
        let good = [("__path__", below(&world, "*.log"))];
        let bad = [("__path__", "/tmp/[".to_owned())];
        let excluding = [("__path__", below(&world, "*")), ("__path_exclude__", "{".to_owned())];
        let text = targets(&[&bad, &good, &excluding]);
        let mut unit = Unit::start(world.clone(), &DEFINITION, &text).await.unwrap();
        until_paths(&world, "a.log").await;
        assert_eq!(world.health_text(), "unhealthy: error getting paths of \"/tmp/[\": syntax error in pattern");
        let line = "msg=\"error getting paths\" component_id=local.file_match.x path=/tmp/[ excluded=\"\" err=";
        assert!(world.logs().contains(line), "{}", world.logs());
        unit.update(&targets(&[&good])).await.unwrap();
        until("it is well", || world.health_text() == "healthy: component evaluated").await;
        // Without a pattern there is nothing to find.
        unit.update(&targets(&[&[("job", "x".to_owned())]])).await.unwrap();
        until_paths(&world, "").await;
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn links_are_followed_and_those_that_lead_nowhere_are_told_of() {
        use std::os::unix::fs::symlink;

        let world = host("local.file_match.x");
        world.write("d/a.log", "");
        symlink("d", world.path("e")).unwrap();
        symlink("d/a.log", world.path("b.log")).unwrap();
        symlink("nowhere", world.path("c.log")).unwrap();
        // A circle: the walk ends nevertheless.
        symlink("..", world.path("d/up")).unwrap();
        let text = targets(&[&[("__path__", below(&world, "**/*.log"))]]);
        let _unit = Unit::start(world.clone(), &DEFINITION, &text).await.unwrap();
        until_paths(&world, "b.log d/a.log e/a.log").await;
        let line =
            format!("msg=\"error getting os stat\" component_id=local.file_match.x path={}", below(&world, "c.log"));
        assert!(world.logs().contains(&line), "{}", world.logs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_is_deleted_takes_its_files_and_brings_them_back() {
        let world = host("local.file_match.x");
        world.write("d/a.log", "");
        let text = targets(&[&[("__path__", below(&world, "d/*.log"))]]);
        let _unit = Unit::start(world.clone(), &DEFINITION, &text).await.unwrap();
        until_paths(&world, "d/a.log").await;
        fs::remove_dir_all(world.path("d")).unwrap();
        until_paths(&world, "").await;
        assert_eq!(world.health_text(), "healthy: component evaluated");
        world.write("d/b.log", "");
        until_paths(&world, "d/b.log").await;
    }

    #[tokio::test]
    async fn a_sync_period_of_zero_is_refused() {
        for period in ["\"0s\"", "null"] {
            let text = format!("path_targets = []\nsync_period = {period}");
            let refused = Unit::start(host("local.file_match.x"), &DEFINITION, &text).await.unwrap_err();
            assert!(refused.ends_with("sync_period must be greater than 0"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_relative_pattern_gives_absolute_paths() {
        let world = host("local.file_match.x");
        let text = targets(&[&[("__path__", "Cargo.to*".to_owned())]]);
        let _unit = Unit::start(world.clone(), &DEFINITION, &text).await.unwrap();
        let path = std::env::current_dir().unwrap().join("Cargo.toml");
        until_paths(&world, path.to_str().unwrap()).await;
    }

    #[tokio::test]
    async fn what_was_found_stays_until_new_arguments_have_found_theirs() {
        let world = host("local.file_match.x");
        world.write("a.log", "");
        let mut unit =
            Unit::start(world.clone(), &DEFINITION, &targets(&[&[("__path__", below(&world, "a.*"))]])).await.unwrap();
        until_paths(&world, "a.log").await;
        world.write("b.log", "");
        unit.update(&targets(&[&[("__path__", below(&world, "b.*"))]])).await.unwrap();
        until_paths(&world, "b.log").await;
        let empty = world.exports().iter().skip(1).filter(|e| e.field("targets").unwrap().items().count() == 0).count();
        assert_eq!(empty, 0);
    }

    #[tokio::test]
    async fn ten_thousand_files_are_found() {
        let world = host("local.file_match.x");
        for n in 0..10_000 {
            world.write(&format!("{}/{n:05}.log", n % 50), "");
        }
        let _unit = Unit::start(world.clone(), &DEFINITION, &targets(&[&[("__path__", below(&world, "**/*.log"))]]))
            .await
            .unwrap();
        until("all are found", || found(&world).len() == 10_000).await;
    }

    #[tokio::test]
    async fn a_thousand_reloads_leave_nothing_behind() {
        let world = host("local.file_match.x");
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let text = |n: usize| targets(&[&[("__path__", below(&world, &format!("{n}.log")))]]);
        let mut unit = Unit::start(world.clone(), &DEFINITION, &text(0)).await.unwrap();
        for n in 1..=1_000 {
            unit.update(&text(n)).await.unwrap();
        }
        until("the old tasks are gone", || tasks() == 1).await;
        unit.drain().await;
        until("the last task is gone", || tasks() == 0).await;
    }

    #[tokio::test]
    async fn targets_flow_on() {
        let world = host("none");
        world.write("a.log", "");
        let text = format!(
            "local.file_match \"a\" {{\n{}\n}}\nlocal.file_match \"b\" {{\npath_targets = local.file_match.a.targets\n}}",
            targets(&[&[("__path__", below(&world, "*.log")), ("job", "x".to_owned())]])
        );
        let pipeline = load(&text, &[crate::COMPONENTS]).await.unwrap();
        let targets = |id: &str| labels(&pipeline.exports(id).field("targets").unwrap());
        let expected = [format!("__path__={} job=x", below(&world, "a.log"))];
        until("the second has found it", || targets("local.file_match.b") == expected).await;
        pipeline.shutdown().await;
    }
}
