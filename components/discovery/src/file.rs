//! `discovery.file`: targets that are listed in files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use corten_component::metrics::{Counter, Gauge, Summary, Vector};
use corten_component::{Component, Context, Error, Logger};
use corten_config::{Arguments, CheckErrors};
use corten_files::watch::{Interest, Watch};
use corten_files::{Dialect, Pattern, read_limited};
use corten_signal::target::Target;
use parking_lot::Mutex;

use crate::poll::{Discoverer, Found, Poll};
use crate::{Offer, groups};

/// The label with the path of the file that a target was listed in.
const FILEPATH: &str = "__meta_filepath";

/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: usize = 64 << 20;

/// Exports the targets that are listed in files, and follows the files.
///
/// A file holds a list of groups, `[{"targets": ["host:1"], "labels": {"job": "x"}}]`, in JSON or YAML: its name ends
/// with `.json`, `.yml` or `.yaml`. Each target gets the label `__meta_filepath`. A file that cannot be read keeps the
/// targets that were last read from it, and one that is gone takes them with it. Changes are noticed at once where the
/// system tells of them. A file may have up to 64 MiB and a million targets.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// The files, as paths or patterns: `*` and `?` stand for any characters but a slash, `[a-z]` for one of some. One
    /// that can only find files with other extensions is refused.
    files: Vec<String>,
    /// How often to read all files, besides when they change.
    #[arg(default = "5m")]
    refresh_interval: Duration,
}

impl Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let holds = !self.refresh_interval.is_zero();
        errors.require(holds, &["refresh_interval"], "refresh_interval must be greater than 0");
        // The reference ends with a panic when it finds such a file.
        for name in self.files.iter().filter(|name| finds_only_others(name)) {
            errors.push(&["files"], format!("path name {name:?} is not valid for file discovery"));
        }
        errors.into_result()
    }
}

/// Whether no file that matches a pattern can have one of the extensions: the last segment ends with another.
fn finds_only_others(pattern: &str) -> bool {
    let name = pattern.rsplit('/').next().unwrap_or_default();
    // What stands after the last sign that may stand for something else. A pattern that is wrong is told of elsewhere.
    let tail = &name[name.rfind(['*', '?', '[', ']', '\\']).map_or(0, |sign| sign + 1)..];
    match tail.rsplit_once('.') {
        Some((_, extension)) => parser(extension).is_none(),
        // Nothing at all finds nothing, which is what a variable of the environment gives that is not set.
        None => tail.len() == name.len() && !pattern.is_empty(),
    }
}

/// Reads a list of groups.
type Parse = fn(&[u8]) -> Result<Vec<groups::Group>, String>;

/// What reads files with an extension; nothing if files with it are not read.
fn parser(extension: &str) -> Option<Parse> {
    match extension.to_ascii_lowercase().as_str() {
        "json" => Some(groups::from_json),
        "yml" | "yaml" => Some(groups::from_yaml),
        _ => None,
    }
}

/// The component.
#[derive(Debug)]
pub struct File(Poll<Self>);

impl Component for File {
    const NAME: &'static str = "discovery.file";
    type Arguments = Config;
    type Exports = Offer;
    type Prepared = Config;

    async fn prepare(config: Config, _: &Context<Self>, current: Option<&Self>) -> Result<(Config, Offer), Error> {
        Ok((config, Poll::offer(current.map(|current| &current.0))))
    }

    fn commit(current: Option<Self>, config: Config, cx: &Context<Self>) -> Self {
        let every = config.refresh_interval;
        let files = Arc::new(Files::new(&config.files, cx));
        File(Poll::start(current.map(|current| current.0), cx, every, move || Reader {
            files: Arc::clone(&files),
            watch: Some(Watch::new()),
        }))
    }

    async fn drain(self, _: &Context<Self>) {
        self.0.stop().await;
    }
}

/// Reads the files whenever it is asked to, or when they change.
struct Reader {
    files: Arc<Files>,
    /// Gone while the files are read.
    watch: Option<Watch>,
}

impl Discoverer for Reader {
    // The reference counts the refreshes of files on their own.
    const MECHANISM: Option<&'static str> = None;

    async fn refresh(&mut self) -> Result<Found, String> {
        let (files, mut watch) = (Arc::clone(&self.files), self.watch.take().unwrap_or_default());
        let read = move || {
            let found = files.read(&mut watch);
            (found, watch)
        };
        let (found, watch) = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
        self.watch = Some(watch);
        Ok(found)
    }

    async fn changed(&self) {
        match &self.watch {
            Some(watch) => watch.changed().await,
            None => std::future::pending().await,
        }
    }
}

/// The files that a component reads.
struct Files {
    patterns: Vec<(String, Result<Pattern, String>)>,
    logger: Logger,
    metrics: FileMetrics,
    /// What could not be watched when that was last tried, so that it is told once.
    not_watched: Mutex<Vec<String>>,
    /// The files of which there is a time of change among the metrics, with it.
    stamped: Mutex<BTreeMap<String, Gauge>>,
}

struct FileMetrics {
    read_errors: Counter,
    watcher_errors: Counter,
    scan_duration: Summary,
    mtime: Vector<Gauge>,
}

impl Files {
    fn new(patterns: &[String], cx: &Context<File>) -> Self {
        let compile = |text: &String| Pattern::new(text, Dialect::Go).map_err(|error| error.to_string());
        let registry = cx.metrics();
        let mtime = registry.gauges(
            "prometheus_sd_file_mtime_seconds",
            "Timestamp (mtime) of files read by FileSD. Timestamp is set at read time.",
            &["filename"],
        );
        // Of the files of other arguments.
        mtime.clear();
        Files {
            patterns: patterns.iter().map(|text| (text.clone(), compile(text))).collect(),
            logger: cx.logger().clone(),
            metrics: FileMetrics {
                read_errors: registry
                    .counter("prometheus_sd_file_read_errors_total", "The number of File-SD read errors."),
                watcher_errors: registry.counter(
                    "prometheus_sd_file_watcher_errors_total",
                    "The number of File-SD errors caused by filesystem watch failures.",
                ),
                scan_duration: registry
                    .summaries(
                        "prometheus_sd_file_scan_duration_seconds",
                        "The duration of the File-SD scan in seconds.",
                        &[],
                        &[0.5, 0.9, 0.99],
                    )
                    .with(&[]),
                mtime,
            },
            not_watched: Mutex::default(),
            stamped: Mutex::default(),
        }
    }

    /// Reads all files there are now.
    fn read(&self, watch: &mut Watch) -> Found {
        let started = Instant::now();
        let mut found = Found::default();
        let mut stamps = Vec::new();
        let paths = self.paths(&mut found.problem);
        // First watched, then read: what changes in between is read again.
        self.watch(watch, &paths);
        for path in paths {
            let Some(name) = path.to_str().map(str::to_owned) else { continue };
            match read(&path, &name) {
                Ok((targets, modified)) => {
                    stamps.push((name.clone(), modified));
                    found.groups.insert(name, Some(targets));
                }
                Err(error) => {
                    self.metrics.read_errors.inc();
                    self.logger.error("Error reading file", &[("path", (&name).into()), ("err", (&error).into())]);
                    found.problem.get_or_insert_with(|| format!("error reading file: {error}"));
                    found.groups.insert(name, None);
                }
            }
        }
        self.stamp(&stamps, &found);
        self.metrics.scan_duration.observe(started.elapsed().as_secs_f64());
        found
    }

    fn paths(&self, problem: &mut Option<String>) -> BTreeSet<PathBuf> {
        let mut paths = BTreeSet::new();
        for (text, pattern) in &self.patterns {
            match pattern {
                Ok(pattern) => paths.extend(pattern.walk().paths),
                Err(error) => {
                    let fields = [("glob", text.into()), ("err", error.into())];
                    self.logger.error("Error expanding glob", &fields);
                    problem.get_or_insert_with(|| format!("error expanding glob {text:?}: {error}"));
                }
            }
        }
        paths
    }

    /// Watches the folders that the files are in, and those that patterns name, where files may come.
    fn watch(&self, watch: &mut Watch, paths: &BTreeSet<PathBuf>) {
        let named = self.patterns.iter().map(|(text, _)| Path::new(text)).filter_map(|pattern| pattern.parent());
        let named = named.filter(|folder| !folder.to_string_lossy().contains(['*', '?', '[', '\\']));
        let folders: BTreeSet<&Path> = named.chain(paths.iter().filter_map(|path| path.parent())).collect();
        let interests: Vec<Interest> = folders.into_iter().map(|folder| Interest::Folder(folder.to_owned())).collect();
        let errors = watch.set(&interests);
        let mut before = self.not_watched.lock();
        if *before != errors {
            for error in &errors {
                self.metrics.watcher_errors.inc();
                self.logger.error("Error adding file watch", &[("err", error.into())]);
            }
            *before = errors;
        }
    }

    fn stamp(&self, stamps: &[(String, SystemTime)], found: &Found) {
        let mut stamped = self.stamped.lock();
        stamped.retain(|name, _| {
            let kept = found.groups.contains_key(name);
            if !kept {
                self.metrics.mtime.remove(&[name]);
            }
            kept
        });
        for (name, modified) in stamps {
            let seconds = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            // Looking it up among the metrics takes the longer the more there are.
            stamped.entry(name.clone()).or_insert_with(|| self.metrics.mtime.with(&[name])).set(seconds as f64);
        }
    }
}

/// The targets of a file, and when it was last changed.
fn read(path: &Path, name: &str) -> Result<(Vec<Target>, SystemTime), String> {
    // As Go has it, the extension of a file `.json` is all of its name.
    let extension =
        name.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(_, extension)| extension);
    let Some(parse) = parser(extension) else {
        return Err(format!("read {name}: unhandled file extension \".{extension}\""));
    };
    let (content, modified) = read_limited(path, FILE_BYTES_MAX)?;
    let targets = parse(&content).and_then(|groups| groups::targets(&groups, (FILEPATH, name)));
    targets.map(|targets| (targets, modified)).map_err(|error| format!("read {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use corten_component::Definition;
    use corten_testkit::{Unit, World, host, labels, load, until};

    use super::*;

    const DEFINITION: Definition = Definition::of::<File>();

    /// So long that no test sees it, although the time between two exports passes at once.
    const NEVER: &str = "refresh_interval = \"100000h\"";

    fn body(world: &World, patterns: &[&str], more: &str) -> String {
        let patterns: Vec<String> = patterns.iter().map(|pattern| format!("{:?}", world.path(pattern))).collect();
        format!("files = [{}]\n{more}", patterns.join(", "))
    }

    async fn start(world: &World, patterns: &[&str], more: &str) -> Unit {
        Unit::start(world.clone(), &DEFINITION, &body(world, patterns, more)).await.unwrap()
    }

    /// The exported targets, paths relative to the world's folder.
    fn found(world: &World) -> Vec<String> {
        let root = format!("{}/", world.path("").to_str().unwrap().trim_end_matches('/'));
        let exports = world.exports();
        let targets = exports.last().and_then(|exports| exports.field("targets"));
        targets.map_or_else(Vec::new, |targets| labels(&targets)).iter().map(|line| line.replace(&root, "")).collect()
    }

    /// The exported addresses.
    fn addresses(world: &World) -> String {
        let address = |line: &String| line.split([' ', '=']).nth(1).unwrap_or_default().to_owned();
        found(world).iter().map(address).collect::<Vec<_>>().join(" ")
    }

    async fn until_addresses(world: &World, expected: &str) {
        until(&format!("the addresses are {expected}"), || addresses(world) == expected).await;
    }

    fn list(address: &str) -> String {
        format!("[{{\"targets\": [{address:?}]}}]")
    }

    #[tokio::test(start_paused = true)]
    async fn targets_are_read_with_their_labels_and_their_file() {
        let world = host("discovery.file.x");
        world.write("b.json", r#"[{"targets": ["b:1", "b:2"], "labels": {"job": "x"}}, {"targets": ["b:3"]}]"#);
        world.write("a.yml", "- targets: [a:1]\n  labels: {env: dev}\n");
        world.write("c.YAML", "- targets: [c:1]\n");
        world.write("d/e.json", list("e:1"));
        let _unit = start(&world, &["*.[jyY]*", "d/e.json", "b.json"], NEVER).await;
        let expected = [
            "__address__=a:1 __meta_filepath=a.yml env=dev",
            "__address__=b:1 __meta_filepath=b.json job=x",
            "__address__=b:2 __meta_filepath=b.json job=x",
            "__address__=b:3 __meta_filepath=b.json",
            "__address__=c:1 __meta_filepath=c.YAML",
            "__address__=e:1 __meta_filepath=d/e.json",
        ];
        until("all are found", || found(&world) == expected).await;
        assert_eq!(world.metric("prometheus_sd_file_scan_duration_seconds"), Some(1.0));
        assert_eq!(world.metric("prometheus_sd_file_read_errors_total"), Some(0.0));
        assert_eq!(world.metric("prometheus_sd_file_watcher_errors_total"), Some(0.0));
        let path = world.path("a.yml");
        let modified = fs::metadata(&path).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mtime = world.metrics().get("prometheus_sd_file_mtime_seconds", &[("filename", path.to_str().unwrap())]);
        assert_eq!(mtime, Some(modified as f64));
        assert!(!world.metrics().text().contains("prometheus_sd_refresh"), "these are for other mechanisms");
    }

    #[tokio::test(start_paused = true)]
    async fn two_stars_are_one_star() {
        let world = host("discovery.file.x");
        world.write("a/b.json", list("b"));
        world.write("a/c/d.json", list("d"));
        let _unit = start(&world, &["**/*.json"], NEVER).await;
        until_addresses(&world, "b").await;
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_come_change_and_go_are_noticed() {
        let world = host("discovery.file.x");
        world.write("a.json", list("a:1"));
        let _unit = start(&world, &["*.json"], NEVER).await;
        until_addresses(&world, "a:1").await;
        let tmp = world.write("tmp", list("b:1"));
        fs::rename(tmp, world.path("b.json")).unwrap();
        until_addresses(&world, "a:1 b:1").await;
        fs::remove_file(world.path("a.json")).unwrap();
        until_addresses(&world, "b:1").await;
        let path = world.path("a.json");
        let stamp = || world.metrics().get("prometheus_sd_file_mtime_seconds", &[("filename", path.to_str().unwrap())]);
        assert_eq!(stamp(), None);
        world.write("b.json", "[]");
        until_addresses(&world, "").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_read_keeps_what_was_read_from_it() {
        let world = host("discovery.file.x");
        world.write("a.json", list("a:1"));
        world.write("b.json", list("b:1"));
        let _unit = start(&world, &["*.json"], NEVER).await;
        until_addresses(&world, "a:1 b:1").await;
        world.write("a.json", "[{\"targets\": [\"a:2\"]");
        world.write("b.json", list("b:2"));
        until_addresses(&world, "a:1 b:2").await;
        let text = format!("unhealthy: error reading file: read {}: EOF", world.path("a.json").display());
        until("it is unhealthy", || world.health_text().starts_with(&text)).await;
        assert!(world.metric("prometheus_sd_file_read_errors_total") >= Some(1.0));
        assert!(world.logs().contains("msg=\"Error reading file\""), "{}", world.logs());
        world.write("a.json", list("a:3"));
        until_addresses(&world, "a:3 b:2").await;
        until("it is well again", || world.health_text() == "healthy: component evaluated").await;
    }

    #[tokio::test(start_paused = true)]
    async fn another_extension_is_an_error_and_no_more() {
        let world = host("discovery.file.x");
        world.write("a.json", list("a:1"));
        world.write("b.txt", list("b:1"));
        let _unit = start(&world, &["*.*"], NEVER).await;
        until_addresses(&world, "a:1").await;
        let health = world.health_text();
        assert!(health.ends_with("b.txt: unhandled file extension \".txt\""), "{health}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pattern_that_can_only_find_other_extensions_is_refused() {
        for (pattern, is_refused) in [
            ("a.txt", true),
            ("a", true),
            ("/etc/a.json/b", true),
            ("*.txt", true),
            ("[ab].json5", true),
            ("*.json.tmp", true),
            ("*.", true),
            ("folder/", true),
            ("a.json", false),
            ("a.YML", false),
            ("*/a.yaml", false),
            ("a.b/*.json", false),
            ("*", false),
            ("*.*", false),
            ("*.[jy]*", false),
            ("*json", false),
            ("a.jso?", false),
            ("a.[j]son", false),
            ("\\a", false),
            ("a.jso\\n", false),
            ("", false),
        ] {
            let text = format!("files = [\"never.json\", {pattern:?}]\n{NEVER}");
            let outcome = Unit::start(host("discovery.file.x"), &DEFINITION, &text).await;
            let error = format!("path name {pattern:?} is not valid for file discovery");
            assert_eq!(outcome.is_err_and(|refused| refused.ends_with(&error)), is_refused, "{pattern}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn thousands_of_files_and_targets_are_found() {
        let world = host("discovery.file.x");
        for n in 0..5_000 {
            world.write(&format!("{n}.json"), list(&format!("{n}:1")));
        }
        let many: Vec<String> = (0..50_000).map(|n| format!("many:{n}")).collect();
        world.write("many.yml", format!("- targets: {many:?}\n"));
        let _unit = start(&world, &["*.[jy]*"], NEVER).await;
        // Counting so many takes a while: it is done once for each export, of which the first has nothing.
        for (exports, expected) in [(2, 55_000), (3, 5_000)] {
            until("they are exported", || world.exports().len() == exports).await;
            let targets = world.exports().last().unwrap().field("targets").unwrap();
            assert_eq!(targets.items().count(), expected);
            let _ = fs::remove_file(world.path("many.yml"));
        }
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_volume_that_is_exchanged_behind_a_link_is_noticed() {
        use std::os::unix::fs::symlink;

        let world = host("discovery.file.x");
        world.write("v/..1/a.json", list("a:1"));
        symlink("..1", world.path("v/..data")).unwrap();
        symlink("..data/a.json", world.path("v/a.json")).unwrap();
        let _unit = start(&world, &["v/*.json"], NEVER).await;
        until_addresses(&world, "a:1").await;
        for n in 2..5 {
            world.write(&format!("v/..{n}/a.json"), list(&format!("a:{n}")));
            symlink(format!("..{n}"), world.path("v/..tmp")).unwrap();
            fs::rename(world.path("v/..tmp"), world.path("v/..data")).unwrap();
            fs::remove_dir_all(world.path(&format!("v/..{}", n - 1))).unwrap();
            until_addresses(&world, &format!("a:{n}")).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_is_deleted_takes_its_targets_and_brings_them_back() {
        let world = host("discovery.file.x");
        world.write("f/a.json", list("a:1"));
        world.write("b.json", list("b:1"));
        let _unit = start(&world, &["f/*.json", "b.json"], "").await;
        until_addresses(&world, "b:1 a:1").await;
        fs::remove_dir_all(world.path("f")).unwrap();
        until_addresses(&world, "b:1").await;
        world.write("f/a.json", list("a:2"));
        // By the next refresh at the latest.
        until_addresses(&world, "b:1 a:2").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_pattern_that_is_wrong_finds_nothing_and_says_so() {
        let world = host("discovery.file.x");
        world.write("a.json", list("a:1"));
        let _unit = start(&world, &["[.json", "a.json"], NEVER).await;
        until_addresses(&world, "a:1").await;
        assert!(world.health_text().ends_with("syntax error in pattern"), "{}", world.health_text());
        assert!(world.logs().contains("msg=\"Error expanding glob\""), "{}", world.logs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_comes_later_is_found_with_the_next_refresh() {
        let world = host("discovery.file.x");
        let _unit = start(&world, &["later/*.json"], "").await;
        until("it was noticed", || world.metric("prometheus_sd_file_watcher_errors_total") == Some(1.0)).await;
        assert!(world.logs().contains("msg=\"Error adding file watch\""), "{}", world.logs());
        let started = tokio::time::Instant::now();
        world.write("later/a.json", list("a:1"));
        until_addresses(&world, "a:1").await;
        assert!((299..=301).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_too_large_is_not_read() {
        let world = host("discovery.file.x");
        world.write("a.json", list("a:1"));
        fs::File::create(world.path("b.json")).unwrap().set_len(FILE_BYTES_MAX as u64 + 1).unwrap();
        let _unit = start(&world, &["*.json"], NEVER).await;
        until_addresses(&world, "a:1").await;
        let health = world.health_text();
        assert!(health.ends_with("file is larger than the limit of 67108864 bytes"), "{health}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_interval_of_zero_is_refused() {
        let world = host("discovery.file.x");
        let refused =
            Unit::start(world.clone(), &DEFINITION, "files = []\nrefresh_interval = \"0s\"").await.unwrap_err();
        assert!(refused.ends_with("refresh_interval must be greater than 0"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_reads_other_files() {
        let world = host("discovery.file.x");
        world.write("a.json", list("a:1"));
        world.write("b.json", list("b:1"));
        let mut unit = start(&world, &["a.json"], NEVER).await;
        until_addresses(&world, "a:1").await;
        unit.update(&body(&world, &["b.json"], NEVER)).await.unwrap();
        until_addresses(&world, "b:1").await;
        let empty = world.exports().iter().skip(1).filter(|e| e.field("targets").unwrap().items().count() == 0).count();
        assert_eq!(empty, 0, "there is no gap");
        let text = world.metrics().text();
        assert!(!text.contains("a.json") && text.contains("b.json"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn targets_flow_on() {
        let world = host("none");
        world.write("a.json", list("a:1"));
        let text = format!(
            "discovery.file \"a\" {{\n{}\n}}\ndiscovery.relabel \"b\" {{\ntargets = discovery.file.a.targets\n\
             rule {{\naction = \"labelkeep\"\nregex = \"__address__\"\n}}\n}}",
            body(&world, &["*.json"], NEVER)
        );
        let pipeline = load(&text, &[crate::COMPONENTS]).await.unwrap();
        let output = || labels(&pipeline.exports("discovery.relabel.b").field("output").unwrap());
        until("the target has come through", || output() == ["__address__=a:1"]).await;
        pipeline.shutdown().await;
    }
}
