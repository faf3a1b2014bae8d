//! Support bundles: what somebody who helps wants to see of a program, in one file.
//!
//! Everything in it is taken from where it is, and not by asking the program's own server: neither TLS nor authentication nor
//! a prefix of its paths leaves a bundle empty. Each entry is searched for secrets before it is packed, whatever was masked
//! where it was made.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_component::SecretBook;
use corten_component::log::{LogSink, Tee, TeeLine};
use corten_component::metrics::Snapshot;
use corten_net::{ServerBody, full_body, http_error};
use corten_runtime::Controller;
use corten_syntax::quote;
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::api::Own;
use crate::metrics::{BuildInfo, constant};
use crate::routes::Peer;
use crate::web;
use crate::zip::Zip;

/// How long a bundle may take, and takes where nothing else is asked for. The reference has the limit from its server, which
/// gives an answer so much time.
const DURATION_MAX: Duration = Duration::from_secs(30);
/// So much of the duration is left for what comes after the wait.
const PACKING: Duration = Duration::from_millis(200);
/// How long a part of a bundle waits to be taken. Of HTTP/2 a client may leave one stream and go on with the others, and
/// everybody else waits for his turn meanwhile.
const TAKE_WAIT: Duration = Duration::from_secs(60);
/// The most requests that wait for the one that is being answered.
const WAITING_MAX: usize = 8;
/// The most bytes of lines that are kept: of more, the newest.
const LOG_BYTES_MAX: usize = 4 << 20;
/// The most bytes of one entry before it is packed. What is longer is cut.
const ENTRY_BYTES_MAX: usize = 32 << 20;
/// The most files of the configuration.
const SOURCES_MAX: usize = 1_000;
/// What says how many files of the configuration there are further.
const LEFT_OUT: &str = "left-out.txt";
/// The most bytes of all entries before they are packed. What comes then is left out.
const BUNDLE_BYTES_MAX: usize = 256 << 20;
/// The folder in the archive.
const FOLDER: &str = "alloy-support-bundle";

/// What the files are, for whoever unpacks them.
const README: &str = "\
This is a support bundle of Corten, a telemetry collector. Secrets are replaced by (secret).

alloy-metadata.yaml             the version, the system, and for how many seconds machine and program have been running
alloy-components.json           all components with their health
alloy-peers.json                the processes that share the work
alloy-metrics-sample-start.txt  the program's own metrics when the bundle was begun
alloy-metrics-sample-end.txt    and when it was finished
alloy-runtime-flags.txt         the flags that the program was started with
alloy-environment.txt           what of the environment changes how it behaves
alloy-logs.txt                  the lines that it wrote meanwhile, the newest 4 MiB
corten-graph.json               what there is and what goes where
corten-components.json          all components with arguments, exports, inner state, health history and books
corten-balance.json             what became of every item: the books of all components
corten-last-load.json           how the configuration was loaded, and what was wrong with it
sources/                        the files of the configuration, at most 1,000

A file is cut at 32 MiB, and all files together at 256 MiB.
";

/// What of the environment is told: what the reference tells, and what else changes how this program behaves.
const ENVIRONMENT: &[&str] = &[
    "AUTOMEMLIMIT",
    "GODEBUG",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "HOSTNAME",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "PPROF_BLOCK_PROFILING_RATE",
    "PPROF_MUTEX_PROFILING_PERCENT",
    "ALLOY_DEPLOY_MODE",
    "TZ",
];

type Answer = Response<ServerBody>;

/// Makes support bundles, one at a time.
pub(crate) struct Bundles {
    /// The flags that the program was started with, as `name=value`; nothing where bundles are not wanted.
    flags: Option<Vec<String>>,
    build: BuildInfo,
    controller: Arc<Controller>,
    gather: Arc<dyn Fn() -> Snapshot + Send + Sync>,
    book: Arc<SecretBook>,
    sink: Arc<LogSink>,
    peer: Peer,
    turn: Arc<Turn<()>>,
    places: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

/// What bundles are made of.
pub(crate) struct Parts {
    pub(crate) flags: Option<Vec<String>>,
    pub(crate) build: BuildInfo,
    pub(crate) controller: Arc<Controller>,
    pub(crate) gather: Arc<dyn Fn() -> Snapshot + Send + Sync>,
    pub(crate) book: Arc<SecretBook>,
    pub(crate) sink: Arc<LogSink>,
    pub(crate) peer: Peer,
    pub(crate) stopped: watch::Receiver<bool>,
}

impl Bundles {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { flags, build, controller, gather, book, sink, peer, stopped } = parts;
        let (turn, places) = (Arc::default(), Arc::new(Semaphore::new(WAITING_MAX + 1)));
        Bundles { flags, build, controller, gather, book, sink, peer, turn, places, stopped }
    }

    /// Answers a request for a bundle. It is sent as it is made; when nobody takes it any more, the work ends.
    pub(crate) async fn answer(self: &Arc<Self>, own: &Arc<Own>, uri: &Uri) -> Answer {
        if self.flags.is_none() {
            return refused(
                StatusCode::FORBIDDEN,
                "support bundle generation is disabled; it can be re-enabled by removing the \
                 --server.http.disable-support-bundle flag",
            );
        }
        let duration = match duration(uri.query().unwrap_or_default()) {
            Ok(duration) => duration,
            Err(error) => return http_error(StatusCode::BAD_REQUEST, &error),
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return http_error(StatusCode::SERVICE_UNAVAILABLE, "too many support bundles are asked for at a time");
        };
        let mut stopped = self.stopped.clone();
        let turn = tokio::select! {
            turn = Arc::clone(&self.turn).lock_owned() => turn,
            // A server that was dropped without being stopped ends as well.
            _ = stopped.wait_for(|stopped| *stopped) => {
                return http_error(StatusCode::SERVICE_UNAVAILABLE, "the program ends");
            }
        };
        let (sender, receiver) = mpsc::channel(1);
        let (bundles, own) = (Arc::clone(self), Arc::clone(own));
        let made = tokio::spawn(async move {
            let _held = (place, turn);
            tokio::select! {
                made = bundles.make(&own, &sender, duration) => made,
                () = sender.closed() => Err(io::ErrorKind::BrokenPipe.into()),
                _ = stopped.wait_for(|stopped| *stopped) => Err(io::Error::other("the program ends")),
            }
        });
        let mut response = Response::new(body(receiver, made));
        for (name, value) in [
            (header::CONTENT_TYPE, "application/zip"),
            (header::CONTENT_DISPOSITION, "attachment; filename=\"alloy-support-bundle.zip\""),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    async fn make(&self, own: &Own, to: &Sender, duration: Duration) -> io::Result<()> {
        let listening = Listening::start(&self.sink, &self.book);
        let mut bundle = Bundle { zip: Zip::default(), bytes: 0, book: Arc::clone(&self.book), to };
        bundle.add("alloy-metrics-sample-start.txt", (self.gather)().to_text()).await?;
        bundle.add("alloy-components.json", web::list(&self.controller)).await?;
        bundle.add("alloy-peers.json", web::peers(&self.peer)).await?;
        bundle.add("alloy-metadata.yaml", metadata(&self.build)).await?;
        let flags = self.flags.iter().flatten().map(|flag| data_without_secrets(&self.book, flag));
        bundle.add("alloy-runtime-flags.txt", flags.collect::<Vec<_>>().join("\n")).await?;
        bundle.add("alloy-environment.txt", environment(&self.book, |name| std::env::var_os(name))).await?;
        bundle.add("corten-graph.json", own.graph_text()).await?;

        bundle.wait("README.txt", README, duration.saturating_sub(PACKING)).await?;

        bundle.add("alloy-metrics-sample-end.txt", (self.gather)().to_text()).await?;
        bundle.add("corten-balance.json", own.balance_text()).await?;
        bundle.add("corten-components.json", own.components_text(ENTRY_BYTES_MAX).await).await?;
        bundle.add("corten-last-load.json", own.last_load_text()).await?;
        for (name, text) in sources(self.controller.shown_files()) {
            bundle.add(&format!("sources/{name}"), text).await?;
        }
        bundle.add("alloy-logs.txt", listening.end()).await?;
        let end = bundle.zip.finish()?;
        send(to, end).await
    }
}

/// Takes parts of an archive, one at a time.
type Sender = mpsc::Sender<Bytes>;

async fn send(to: &Sender, part: Vec<u8>) -> io::Result<()> {
    let taken = tokio::time::timeout(TAKE_WAIT, to.send(part.into())).await?;
    taken.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

/// The parts of an archive as they are made. Whoever gets some of them alone has to see that they are none, also where
/// making them panicked.
fn body(parts: mpsc::Receiver<Bytes>, made: JoinHandle<io::Result<()>>) -> ServerBody {
    let parts = stream::unfold(Some((parts, made)), |state| async move {
        let (mut parts, made) = state?;
        if let Some(part) = parts.recv().await {
            return Some((Ok(Frame::data(part)), Some((parts, made))));
        }
        let made = made.await.map_err(io::Error::other).flatten();
        made.err().map(|error| (Err(error), None))
    });
    StreamBody::new(parts).map_err(Into::into).boxed_unsync()
}

/// A bundle that is being packed.
struct Bundle<'t> {
    zip: Zip,
    /// How much went into it, before it was packed.
    bytes: usize,
    book: Arc<SecretBook>,
    to: &'t Sender,
}

impl Bundle<'_> {
    /// Adds an entry, without its secrets, and within the limits.
    async fn add(&mut self, name: &str, mut text: String) -> io::Result<()> {
        let (mut zip, name) = (std::mem::take(&mut self.zip), format!("{FOLDER}/{name}"));
        let (book, left) = (Arc::clone(&self.book), BUNDLE_BYTES_MAX.saturating_sub(self.bytes));
        // Packing takes the time that data would wait for.
        let packed = tokio::task::spawn_blocking(move || {
            book.redact(&mut text);
            cut(&mut text, ENTRY_BYTES_MAX.min(left));
            zip.add(&name, text.as_bytes()).map(|()| (zip, text.len()))
        });
        let (zip, bytes) = packed.await.map_err(io::Error::other)??;
        (self.zip, self.bytes) = (zip, self.bytes + bytes);
        send(self.to, self.zip.take()).await
    }

    /// Adds an entry in pieces, a second one from the other. A client may close its side of the connection and still wait
    /// for the answer: only what is sent tells that there is none any more.
    async fn wait(&mut self, name: &str, text: &str, duration: Duration) -> io::Result<()> {
        self.zip.store(&format!("{FOLDER}/{name}"), text.as_bytes())?;
        let mut head = self.zip.take();
        let mut rest = head.split_off(head.len() - text.len());
        send(self.to, head).await?;
        let pieces = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        for left in (1..=pieces).rev() {
            tokio::time::sleep(duration / pieces).await;
            let later = rest.split_off(rest.len() / left as usize);
            send(self.to, std::mem::replace(&mut rest, later)).await?;
        }
        Ok(())
    }
}

/// Cuts a text, and says so at its end.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let left_out = text.len() - text.floor_char_boundary(bytes_max);
        text.truncate(text.floor_char_boundary(bytes_max));
        let _ = write!(text, "\n({left_out} further bytes are left out)\n");
    }
}

/// How long a bundle is wanted to take. The texts of errors are the reference's.
fn duration(query: &str) -> Result<Duration, String> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let Some((_, text)) = pairs.find(|(name, _)| name == "duration") else { return Ok(DURATION_MAX) };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: i64 = text.parse().map_err(|_| {
        let why = if whole { "value out of range" } else { "invalid syntax" };
        format!(
            "duration value (in seconds) should be a positive integer: strconv.Atoi: parsing {}: {why}",
            quote(&text)
        )
    })?;
    let Some(seconds) = u64::try_from(seconds).ok().filter(|seconds| *seconds >= 1) else {
        return Err("duration value (in seconds) should be larger than 1".to_owned());
    };
    match Duration::from_secs(seconds) {
        longer if longer > DURATION_MAX => Err("duration value exceeds the server's write timeout".to_owned()),
        duration => Ok(duration),
    }
}

/// What is known of the program and of the machine that it runs on, as YAML. `uptime` is that of the machine, as in the
/// reference.
fn metadata(build: &BuildInfo) -> String {
    let process = corten_os::process::process_stats();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let program = process.start_time_seconds.map(|start| (now - start).max(0.0));
    let mut out = String::new();
    for (name, text) in [("build_version", build.version), ("os", &constant("os")), ("architecture", &constant("arch"))]
    {
        let _ = writeln!(out, "{name}: {}", yaml_text(text));
    }
    let uptimes = [("uptime", corten_os::process::machine_uptime_seconds().or(program)), ("program_uptime", program)];
    for (name, seconds) in uptimes {
        if let Some(seconds) = seconds {
            let _ = writeln!(out, "{name}: {seconds:.2}");
        }
    }
    out
}

/// A text in YAML: bare where that is read as nothing but the text.
fn yaml_text(text: &str) -> String {
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c));
    // What YAML has a meaning for is written with letters alone.
    let word = text.chars().all(|c| c.is_ascii_alphabetic()) && text.len() <= 5;
    if bare && !(word && ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&&*text.to_lowercase()))
    {
        return text.to_owned();
    }
    // JSON is YAML.
    serde_json::Value::from(text).to_string()
}

/// The variables that are told, one a line; those that are not set are empty, as in the reference.
fn environment(book: &SecretBook, value: impl Fn(&str) -> Option<std::ffi::OsString>) -> String {
    let line = |name: &&str| {
        let value = value(name).map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
        let value = if name.to_ascii_lowercase().ends_with("http_proxy")
            || name.to_ascii_lowercase().ends_with("https_proxy")
        {
            without_user(&value)
        } else {
            value
        };
        data_without_secrets(book, &format!("{name}={value}"))
    };
    ENVIRONMENT.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The address of a proxy without who asks it: some know their users by one word.
fn without_user(url: &str) -> String {
    let Some((before, host)) = url.rsplit_once('@') else { return url.to_owned() };
    let scheme = before.find("://").map_or("", |at| &before[..at + 3]);
    format!("{scheme}(secret)@{host}")
}

fn data_without_secrets(book: &SecretBook, text: &str) -> String {
    book.data_without_secrets(text, false).unwrap_or_else(|| text.to_owned())
}

/// The files of a configuration under names of their own, and what says how many of them are left out.
fn sources(files: Vec<(String, String)>) -> impl Iterator<Item = (String, String)> {
    let left_out = files.len().saturating_sub(SOURCES_MAX);
    let said = (left_out > 0).then(|| (LEFT_OUT.to_owned(), format!("{left_out} further files are left out\n")));
    let mut names: HashSet<String> = said.iter().map(|(name, _)| name.clone()).collect();
    let files = files.into_iter().take(SOURCES_MAX).map(move |(path, text)| {
        let text = corten_syntax::format(&path, &text).unwrap_or(text);
        (own_name(&path, &mut names), text)
    });
    files.chain(said)
}

/// The last part of a path, with a number where another file has it already.
fn own_name(path: &str, names: &mut HashSet<String>) -> String {
    let base = Path::new(path).file_name().map_or_else(|| "config".into(), |name| name.to_string_lossy());
    let mut name = base.clone().into_owned();
    for nth in 2.. {
        if names.insert(name.clone()) {
            break;
        }
        name = format!("{nth}-{base}");
    }
    name
}

/// A refusal whose text ends without a line end, as the reference writes it.
fn refused(status: StatusCode, text: &str) -> Answer {
    let mut response = Response::new(full_body(text.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The lines that are written while a bundle is made.
#[derive(Debug)]
struct Lines {
    book: Arc<SecretBook>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
    left_out: u64,
}

impl Tee for Lines {
    fn line(&self, line: &TeeLine<'_>) {
        let mut text = line.text.to_owned();
        // A secret that is known now may be gone with the next load.
        self.book.redact_data(&mut text);
        cut(&mut text, LOG_BYTES_MAX / 2);
        let mut kept = self.kept.lock();
        kept.bytes += text.len();
        kept.lines.push_back(text);
        while kept.bytes > LOG_BYTES_MAX {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.len();
            kept.left_out += 1;
        }
    }
}

/// Has the program's lines kept, until it is dropped.
struct Listening {
    sink: Arc<LogSink>,
    lines: Arc<Lines>,
}

impl Listening {
    fn start(sink: &Arc<LogSink>, book: &Arc<SecretBook>) -> Self {
        let lines = Arc::new(Lines { book: Arc::clone(book), kept: Mutex::default() });
        sink.listen(Some(Arc::<Lines>::clone(&lines)));
        Listening { sink: Arc::clone(sink), lines }
    }

    /// What was written since the start.
    fn end(self) -> String {
        self.sink.listen(None);
        let kept = std::mem::take(&mut *self.lines.kept.lock());
        let mut out = String::with_capacity(kept.bytes);
        if kept.left_out > 0 {
            let _ = writeln!(out, "({} lines before these are left out)", kept.left_out);
        }
        for mut line in kept.lines {
            self.lines.book.redact_data(&mut line);
            out.push_str(&line);
        }
        out
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.sink.listen(None);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_of_seconds_within_limits() {
        let positive = "duration value (in seconds) should be a positive integer: strconv.Atoi: parsing ";
        let (small, large) = (
            "duration value (in seconds) should be larger than 1",
            "duration value exceeds the server's write timeout",
        );
        for (query, expected) in [
            ("", Ok(30)),
            ("other=1", Ok(30)),
            ("duration=1", Ok(1)),
            ("duration=%2B5&duration=x", Ok(5)),
            ("duration=30", Ok(30)),
            ("duration=31", Err(large.to_owned())),
            ("duration=0", Err(small.to_owned())),
            ("duration=-1", Err(small.to_owned())),
            ("duration", Err(format!("{positive}\"\": invalid syntax"))),
            ("duration=a%22b", Err(format!("{positive}\"a\\\"b\": invalid syntax"))),
            ("duration=1.5", Err(format!("{positive}\"1.5\": invalid syntax"))),
            ("duration=99999999999999999999", Err(format!("{positive}\"99999999999999999999\": value out of range"))),
        ] {
            assert_eq!(duration(query).map(|duration| duration.as_secs()), expected, "{query}");
        }
    }

    #[test]
    fn the_newest_lines_are_kept_without_secrets() {
        let book = Arc::new(SecretBook::default());
        book.set([Arc::from("hunter2-old")]);
        let (sink, _) = LogSink::memory();
        let logger = corten_component::Logger::new(Arc::clone(&sink));
        logger.info("before", &[]);
        let listening = Listening::start(&sink, &book);
        logger.info("it said hunter2-old", &[("password", "hush".into())]);
        book.set([Arc::from("hunter2-new")]);
        logger.info("it said hunter2-new", &[]);
        let text = listening.end();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("it said (secret)\" password=(secret)\n"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");

        let listening = Listening::start(&sink, &book);
        for nth in 0..LOG_BYTES_MAX / 1_000 {
            logger.info(&format!("{nth} {}", "x".repeat(2_000)), &[]);
        }
        let text = listening.end();
        assert!(text.len() < LOG_BYTES_MAX + 100 && text.starts_with("("), "{}", text.len());
        assert!(text.contains(&format!("\"{} x", LOG_BYTES_MAX / 1_000 - 1)), "the last line");

        drop(Listening::start(&sink, &book));
        logger.info("after", &[]);
    }

    /// How many bytes come, and whether that is all of them.
    fn received(work: impl Future<Output = io::Result<()>> + Send + 'static) -> (usize, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (to, parts) = mpsc::channel(1);
            let made = tokio::spawn(async move {
                to.send(Bytes::from_static(b"part")).await.unwrap();
                work.await
            });
            let mut body = body(parts, made);
            let mut bytes = 0;
            while let Some(part) = body.frame().await {
                match part {
                    Ok(part) => bytes += part.data_ref().map_or(0, Bytes::len),
                    Err(_) => return (bytes, false),
                }
            }
            (bytes, true)
        })
    }

    #[test]
    fn whoever_gets_a_part_of_an_archive_is_told_that_it_is_one() {
        assert_eq!(received(async { Ok(()) }), (4, true));
        assert_eq!(received(async { Err(io::Error::other("the program ends")) }), (4, false));
        assert_eq!(received(async { panic!("a part that cannot be made") }), (4, false));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_no_more_lets_others_have_their_turn() {
        let (sender, _parts) = mpsc::channel(1);
        assert!(send(&sender, vec![1]).await.is_ok());
        let waited = tokio::time::Instant::now();
        assert_eq!(send(&sender, vec![2]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(waited.elapsed().as_secs(), TAKE_WAIT.as_secs());
    }

    #[test]
    fn variables_are_told_without_who_asks_a_proxy() {
        let value = |name: &str| {
            let value = match name {
                "HTTP_PROXY" => "http://user:hush@proxy:3128",
                "https_proxy" => "word@proxy:3128",
                "NO_PROXY" => "a,b@c",
                "HOSTNAME" => "hush-hush-hush",
                _ => return None,
            };
            Some(value.into())
        };
        let book = SecretBook::default();
        book.set([Arc::from("hush-hush-hush")]);
        let text = environment(&book, value);
        for line in [
            "HTTP_PROXY=http://(secret)@proxy:3128",
            "https_proxy=(secret)@proxy:3128",
            "NO_PROXY=a,b@c",
            "HOSTNAME=(secret)",
            "GOGC=",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    #[test]
    fn files_of_one_name_stay_apart() {
        let mut names = HashSet::new();
        let paths = ["/a/x.alloy", "/b/x.alloy", "/c/x.alloy", "/", "x.alloy"];
        let found: Vec<String> = paths.iter().map(|path| own_name(path, &mut names)).collect();
        assert_eq!(found, ["x.alloy", "2-x.alloy", "3-x.alloy", "config", "4-x.alloy"]);
    }

    #[test]
    fn files_that_are_left_out_are_counted() {
        let files = |count: usize| (0..count).map(|at| (format!("/a/{at}.alloy"), "// x\n".to_owned())).collect();
        assert_eq!(sources(files(SOURCES_MAX)).count(), SOURCES_MAX);
        let mut many: Vec<(String, String)> = files(SOURCES_MAX + 2);
        many[0].0 = "/a/left-out.txt".to_owned();
        let found: Vec<(String, String)> = sources(many).collect();
        assert_eq!(found.len(), SOURCES_MAX + 1);
        assert_eq!(found[0].0, "2-left-out.txt");
        assert_eq!(found.last(), Some(&("left-out.txt".to_owned(), "2 further files are left out\n".to_owned())));
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let mut text = "é".repeat(10);
        cut(&mut text, 20);
        assert_eq!(text.len(), 20);
        cut(&mut text, 5);
        assert_eq!(text, "éé\n(16 further bytes are left out)\n");
    }

    #[test]
    fn texts_that_yaml_would_read_as_something_else_are_quoted() {
        for (text, expected) in [
            ("v1.2.3", "v1.2.3"),
            ("v0.1.0-rc.1+x", "v0.1.0-rc.1+x"),
            ("linux", "linux"),
            ("No", "\"No\""),
            ("1.5", "\"1.5\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
        ] {
            assert_eq!(yaml_text(text), expected);
        }
    }

    proptest! {
        #[test]
        fn no_query_breaks_the_duration(query in any::<String>(), number in any::<i128>()) {
            let _ = duration(&query);
            let seconds = duration(&format!("duration={number}"));
            prop_assert_eq!(seconds.is_ok(), (1..=30).contains(&number));
        }
    }
}
