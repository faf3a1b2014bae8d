//! `local.file`: the content of a file as a value.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_component::{Component, Context, Error, Health, HealthState, Stop, Task, Turn};
use corten_config::limits::TEXT_BYTES_MAX;
use corten_config::schema::Stability;
use corten_config::value::OptionalSecret;
use corten_config::{Arguments, CheckErrors, Exports, StringEnum};
use corten_files::read_limited;
use corten_files::watch::{Watch, way};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How long a file is left alone after it changed, so that a write in several steps is read once and whole.
const SETTLE_MS: u64 = 30;

/// Exports the content of a file, and exports it again whenever the file changes.
///
/// The file has to be there, and to be readable, when the component is loaded. If it cannot be read later, the component
/// is unhealthy and its export stays as it was. Replacing the file by renaming another, and links that lead elsewhere, as
/// in volumes of Kubernetes, are noticed as well. The file may have up to 64 MiB, and has to be UTF-8 text.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// Path of the file.
    filename: String,
    /// How changes are noticed: `fsnotify` is told by the system, and looks every `poll_frequency` as well; `poll` looks
    /// every `poll_frequency`, for file systems that tell nothing.
    #[arg(default = "fsnotify")]
    detector: Detector,
    /// How often to look at the file.
    #[arg(default = "1m")]
    poll_frequency: Duration,
    /// Whether the content is exported as a secret, which is never shown and fits only where a secret is expected.
    #[arg(default = false)]
    is_secret: bool,
}

impl Config {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let holds = !self.poll_frequency.is_zero();
        errors.require(holds, &["poll_frequency"], "poll_frequency must be greater than 0");
        errors.into_result()
    }
}

/// How changes are noticed.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[string_enum(refusal = refuse_detector)]
enum Detector {
    /// The system tells.
    #[value(zero)]
    Fsnotify,
    /// By looking.
    Poll,
    /// The same as `fsnotify`.
    #[value(name = "")]
    Unset,
}

fn refuse_detector(text: &str) -> String {
    format!("unrecognized detector {text:?}, expected fsnotify or poll")
}

/// What `local.file` exports.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Offer {
    /// The content of the file when it was last read; a secret if `is_secret` says so.
    #[export(secret_if = "is_secret")]
    content: OptionalSecret,
}

/// The component.
#[derive(Debug)]
pub struct File {
    turn: Turn<Self>,
    task: Task,
}

impl Component for File {
    const NAME: &'static str = "local.file";
    type Arguments = Config;
    type Exports = Offer;
    type Prepared = (Config, Offer);

    async fn prepare(config: Config, _: &Context<Self>, _: Option<&Self>) -> Result<((Config, Offer), Offer), Error> {
        let offer = read(&config).await.map_err(|error| format!("failed to read file: {error}"))?;
        Ok(((config, offer.clone()), offer))
    }

    fn commit(current: Option<Self>, (config, offer): (Config, Offer), cx: &Context<Self>) -> Self {
        let turn = current.as_ref().map_or_else(|| Turn::first(cx), |current| current.turn.next());
        announce(&turn, &offer);
        let follower = Arc::new(Follower { config, turn: turn.clone() });
        let task = cx.spawn("follow", move |stop| Arc::clone(&follower).run(stop));
        File { turn, task }
    }

    async fn drain(self, _: &Context<Self>) {
        self.task.stop().await;
    }
}

/// Reads the file under these settings again and again.
struct Follower {
    config: Config,
    turn: Turn<File>,
}

impl Follower {
    async fn run(self: Arc<Self>, mut stop: Stop) -> Result<(), String> {
        let frequency = self.config.poll_frequency;
        let mut poll = interval_at(Instant::now() + frequency, frequency);
        poll.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut watch = (self.config.detector != Detector::Poll).then(Watch::new);
        let mut not_watched = Vec::new();
        loop {
            if let Some(watching) = watch.take() {
                let (watching, errors) = tokio::select! {
                    () = stop.wait() => return Ok(()),
                    outcome = self.watch(watching) => outcome?,
                };
                watch = Some(watching);
                if errors != not_watched {
                    for error in &errors {
                        self.warn("failed to watch file", error);
                    }
                    not_watched = errors;
                }
                // Between the last read and the watch the file may have changed.
                tokio::select! {
                    () = stop.wait() => return Ok(()),
                    () = self.read() => {}
                }
            }
            let told = async {
                match &watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.wait() => return Ok(()),
                _ = poll.tick() => {}
                () = told => {
                    if !stop.sleep(Duration::from_millis(SETTLE_MS)).await {
                        return Ok(());
                    }
                }
            }
            if watch.is_none() {
                tokio::select! {
                    () = stop.wait() => return Ok(()),
                    () = self.read() => {}
                }
            }
        }
    }

    /// Watches all that lies on the way to the file now. Gives back what it was given, and what cannot be watched.
    async fn watch(&self, mut watch: Watch) -> Result<(Watch, Vec<String>), String> {
        let path = PathBuf::from(&self.config.filename);
        let set = move || {
            let errors = watch.set(&way(&path));
            (watch, errors)
        };
        tokio::task::spawn_blocking(set).await.map_err(|error| error.to_string())
    }

    async fn read(&self) {
        match read(&self.config).await {
            Ok(offer) => announce(&self.turn, &offer),
            Err(error) => {
                let message = format!("failed to read file: {error}");
                self.turn.speak(|cx| {
                    cx.report_health(Some(Health::now(HealthState::Unhealthy, message)));
                    let fields = [("path", (&self.config.filename).into()), ("err", error.into())];
                    cx.logger().error("failed to read file", &fields);
                });
            }
        }
    }

    fn warn(&self, message: &str, error: &str) {
        self.turn.speak(|cx| {
            cx.logger().warn(message, &[("path", (&self.config.filename).into()), ("err", error.into())]);
        });
    }
}

/// Exports what was read, and says that all is well.
fn announce(turn: &Turn<File>, offer: &Offer) {
    turn.speak(|cx| {
        let name = "local_file_timestamp_last_accessed_unix_seconds";
        let read = cx.metrics().gauge(name, "The last successful access in unix seconds");
        read.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        cx.export(offer);
        cx.report_health(Some(Health::now(HealthState::Healthy, "read file")));
    });
}

async fn read(config: &Config) -> Result<Offer, String> {
    let (path, is_secret) = (PathBuf::from(&config.filename), config.is_secret);
    let reading = tokio::task::spawn_blocking(move || read_text(&path));
    let text = reading.await.unwrap_or_else(|error| Err(error.to_string()))?;
    Ok(Offer { content: OptionalSecret { text: text.into(), is_secret } })
}

fn read_text(path: &Path) -> Result<String, String> {
    let (content, _) = read_limited(path, TEXT_BYTES_MAX)?;
    String::from_utf8(content).map_err(|_| format!("read {}: content is not valid UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use corten_component::Definition;
    use corten_testkit::{Unit, World, host, load, stays, until};

    use super::*;

    const DEFINITION: Definition = Definition::of::<File>();

    fn body(path: &Path, more: &str) -> String {
        format!("filename = {:?}\n{more}", path.to_str().unwrap())
    }

    async fn start(world: &World, path: &Path, more: &str) -> Unit {
        Unit::start(world.clone(), &DEFINITION, &body(path, more)).await.unwrap()
    }

    async fn until_content(world: &World, content: &str) {
        let shown = format!("{content:?}");
        until(&format!("the content is {shown}"), || world.exported("content") == shown).await;
    }

    /// So long that no test sees it.
    const NEVER: &str = "poll_frequency = \"1h\"";

    #[tokio::test]
    async fn the_content_is_exported_when_the_component_is_loaded() {
        let world = host("local.file.x");
        let path = world.write("a", "hello\n");
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let _unit = start(&world, &path, NEVER).await;
        assert_eq!(world.exported("content"), "\"hello\\n\"");
        until("the health tells of it", || world.health_text() == "healthy: read file").await;
        assert!(world.metric("local_file_timestamp_last_accessed_unix_seconds") >= Some(before));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_at_first_fails_the_load() {
        let world = host("local.file.x");
        let path = world.path("missing");
        let error = Unit::start(world.clone(), &DEFINITION, &body(&path, "")).await.unwrap_err();
        assert_eq!(error, format!("failed to read file: open {}: no such file or directory", path.display()));
        let error = load(&format!("local.file \"x\" {{\n{}\n}}", body(&path, "")), &[crate::COMPONENTS]).await;
        let text = "Failed to build component: building component: failed to read file: open";
        assert!(error.unwrap_err().contains(text));
    }

    #[tokio::test]
    async fn arguments_that_make_no_sense_are_refused() {
        let world = host("local.file.x");
        let path = world.write("a", "1");
        for (more, error) in [
            ("poll_frequency = \"0s\"", "poll_frequency must be greater than 0"),
            ("poll_frequency = null", "poll_frequency must be greater than 0"),
            ("detector = \"inotify\"", "unrecognized detector \"inotify\", expected fsnotify or poll"),
        ] {
            let refused = Unit::start(world.clone(), &DEFINITION, &body(&path, more)).await.unwrap_err();
            assert!(refused.ends_with(error), "{more}: {refused}");
        }
        start(&world, &path, "detector = \"\"").await;
    }

    #[tokio::test]
    async fn a_secret_is_exported_as_one() {
        let world = host("local.file.x");
        let path = world.write("a", "hush");
        let mut unit = start(&world, &path, "is_secret = true").await;
        assert_eq!(world.exported("content"), "(secret)");
        unit.update(&body(&path, "")).await.unwrap();
        assert_eq!(world.exported("content"), "\"hush\"");
    }

    #[tokio::test]
    async fn a_change_is_noticed() {
        let world = host("local.file.x");
        let path = world.write("a", "1");
        let _unit = start(&world, &path, NEVER).await;
        fs::write(&path, "2").unwrap();
        until_content(&world, "2").await;
    }

    #[tokio::test]
    async fn an_atomic_replacement_is_noticed() {
        let world = host("local.file.x");
        let path = world.write("a", "1");
        let _unit = start(&world, &path, NEVER).await;
        for n in 2..5 {
            let other = world.write("a.tmp", n.to_string());
            fs::rename(other, &path).unwrap();
            until_content(&world, &n.to_string()).await;
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_volume_that_is_exchanged_behind_a_link_is_noticed() {
        use std::os::unix::fs::symlink;

        let world = host("local.file.x");
        world.write("v/..1/key", "1");
        symlink("..1", world.path("v/..data")).unwrap();
        symlink("..data/key", world.path("v/key")).unwrap();
        let _unit = start(&world, &world.path("v/key"), NEVER).await;
        until_content(&world, "1").await;
        for n in 2..5 {
            world.write(&format!("v/..{n}/key"), n.to_string());
            symlink(format!("..{n}"), world.path("v/..tmp")).unwrap();
            fs::rename(world.path("v/..tmp"), world.path("v/..data")).unwrap();
            fs::remove_dir_all(world.path(&format!("v/..{}", n - 1))).unwrap();
            until_content(&world, &n.to_string()).await;
        }
    }

    #[tokio::test]
    async fn a_later_failure_is_health_and_the_content_stays() {
        let world = host("local.file.x");
        let path = world.write("f/a", "1");
        let _unit = start(&world, &path, NEVER).await;
        fs::remove_dir_all(world.path("f")).unwrap();
        let text = format!("unhealthy: failed to read file: open {}: no such file or directory", path.display());
        until("the component is unhealthy", || world.health_text() == text).await;
        assert_eq!(world.exported("content"), "\"1\"");
        assert!(world.logs().contains("failed to read file"), "{}", world.logs());
        // Although its folder was gone as well, its return is noticed.
        fs::create_dir(world.path("f")).unwrap();
        fs::write(world.path("f/tmp"), "2").unwrap();
        fs::rename(world.path("f/tmp"), &path).unwrap();
        until_content(&world, "2").await;
        until("the component is healthy", || world.health_text() == "healthy: read file").await;
    }

    #[tokio::test]
    async fn what_is_no_text_or_too_large_is_not_exported() {
        let world = host("local.file.x");
        let path = world.write("a", [0xff]);
        let refused = Unit::start(world.clone(), &DEFINITION, &body(&path, "")).await.unwrap_err();
        assert!(refused.ends_with("content is not valid UTF-8"), "{refused}");
        fs::File::create(&path).unwrap().set_len(TEXT_BYTES_MAX as u64 + 1).unwrap();
        let refused = Unit::start(world.clone(), &DEFINITION, &body(&path, "")).await.unwrap_err();
        assert!(refused.ends_with("file is larger than the limit of 67108864 bytes"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn polling_looks_every_so_often_and_not_before() {
        let world = host("local.file.x");
        let path = world.write("a", "1");
        let _unit = start(&world, &path, "detector = \"poll\"\npoll_frequency = \"1h\"").await;
        fs::write(&path, "2").unwrap();
        stays("the content is the first", Duration::from_secs(3_590), || world.exported("content") == "\"1\"").await;
        let started = Instant::now();
        until_content(&world, "2").await;
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_nobody_tells_of_is_found_by_looking() {
        let world = host("local.file.x");
        let path = world.write("a", "1");
        // What is written under another name in another folder is told to whoever watches there.
        let other = world.write("elsewhere/b", "");
        fs::remove_file(&other).unwrap();
        fs::hard_link(&path, &other).unwrap();
        let _unit = start(&world, &path, "poll_frequency = \"10m\"").await;
        let started = Instant::now();
        stays("nothing has changed", Duration::from_secs(60), || world.exported("content") == "\"1\"").await;
        fs::write(&other, "2").unwrap();
        until_content(&world, "2").await;
        assert!(started.elapsed() >= Duration::from_secs(600), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_reload_reads_another_file_and_forgets_the_first() {
        let world = host("local.file.x");
        let (first, second) = (world.write("a", "1"), world.write("b", "2"));
        let mut unit = start(&world, &first, NEVER).await;
        unit.update(&body(&second, NEVER)).await.unwrap();
        assert_eq!(world.exported("content"), "\"2\"");
        fs::write(&first, "3").unwrap();
        fs::write(&second, "4").unwrap();
        until_content(&world, "4").await;
        let all: Vec<String> = world.exports().iter().map(|e| e.field("content").unwrap().to_string()).collect();
        assert_eq!(all, ["\"1\"", "\"2\"", "\"4\""]);
        // A reload that fails leaves the second in place.
        unit.update(&body(&world.path("missing"), NEVER)).await.unwrap_err();
        fs::write(&second, "5").unwrap();
        until_content(&world, "5").await;
    }

    #[tokio::test]
    async fn a_thousand_reloads_leave_nothing_behind() {
        let world = host("local.file.x");
        let files = [world.write("a", "1"), world.write("b", "2")];
        let mut unit = start(&world, &files[0], NEVER).await;
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        until("the task runs", || tasks() == 1).await;
        for n in 1..=1_000 {
            unit.update(&body(&files[n % 2], NEVER)).await.unwrap();
        }
        until("the old tasks are gone", || tasks() == 1).await;
        unit.drain().await;
        until("the last task is gone", || tasks() == 0).await;
    }

    #[tokio::test]
    async fn a_change_flows_on_to_whoever_refers_to_it() {
        let world = host("none");
        let path = world.write("path", world.write("a", "1").to_str().unwrap());
        let text = format!(
            "local.file \"path\" {{\n{}\n}}\nlocal.file \"content\" {{\nfilename = local.file.path.content\n}}",
            body(&path, NEVER)
        );
        let pipeline = load(&text, &[crate::COMPONENTS]).await.unwrap();
        assert_eq!(pipeline.exported("local.file.content", "content"), "\"1\"");
        fs::write(&path, world.write("b", "2").to_str().unwrap()).unwrap();
        until("the other file is read", || pipeline.exported("local.file.content", "content") == "\"2\"").await;
        pipeline.shutdown().await;
    }
}
