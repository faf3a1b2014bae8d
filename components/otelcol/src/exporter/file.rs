//! `otelcol.exporter.file`.

mod whole;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use corten_coding::Coding;
use corten_component::{Component, Context, Error, Health, HealthBoard, HealthState, LocalEnd, Logger, Stop, Task};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::decode::SignedDuration;
use corten_config::schema::Stability;
use corten_otlp::{Batch, Data, OtlpLogs, OtlpMetrics, OtlpSignal, Record, Traces, Value};
use corten_signal::flow::BoxFuture;
use corten_signal::{Consume, ConsumeError};
use indexmap::IndexMap;
use tokio::sync::Mutex;

use self::whole::Framing;
use self::writer::{CLOCK_TICK, Failure, Manner, Rotation, Writer};
use super::counted::Counted;
use super::ends::{HandedOn, LocalEnds};
use crate::flow::{DebugMetrics, Inlets, Input, Stages};

/// Writes telemetry to files.
///
/// Each request becomes a line of JSON, or a message of protocol buffers behind its length, four bytes with the highest
/// first. Packed with zstd it stands behind its length too.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct FileArguments {
    /// The file. With `group_by` it has one `*` in its name.
    path: String,
    /// Whether a file that is there already goes on; otherwise it is emptied at the start. A message at its end that was
    /// written only in part, because the process was killed, is cut off, and that is logged; of a line it is left as it is.
    #[arg(default = false)]
    append: bool,
    /// How telemetry is written: `json` or `proto`.
    #[arg(default = "json")]
    format: String,
    /// No encodings besides `format` are implemented.
    #[arg(optional)]
    encoding: String,
    /// How each request is packed: `zstd`. Empty means not at all.
    #[arg(optional)]
    compression: String,
    /// How it is packed.
    #[block]
    compression_params: Option<CompressionParams>,
    /// How long what arrived is gathered before it is written. With 0 it is written when there is much of it.
    #[arg(default = "1s")]
    flush_interval: SignedDuration,
    /// When a file is put aside and another one begun. It has no effect together with `group_by`.
    #[block]
    rotation: Option<RotationArguments>,
    /// Whether there are several files, by an attribute of resources.
    #[block(default)]
    group_by: GroupBy,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// How requests are packed.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct CompressionParams {
    /// How hard to try. The nearest level that is implemented is taken; of zstd there is one.
    level: i64,
}

/// When a file is put aside, under a name with the time: `name-2006-01-02T15-04-05.000-size.json`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct RotationArguments {
    /// How many mebibytes a file has at most.
    #[arg(default = 100)]
    max_megabytes: u32,
    /// How many days files are kept that were put aside; 0 means for ever.
    #[arg(default = 0)]
    max_days: u32,
    /// How many files are kept that were put aside; 0 means all.
    #[arg(default = 100)]
    max_backups: u32,
    /// Whether the times in names are local, and not in UTC.
    #[arg(default = false)]
    localtime: bool,
}

/// Several files, by an attribute of resources.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct GroupBy {
    /// Whether there are several files.
    #[arg(default = false)]
    enabled: bool,
    /// The attribute whose value stands in place of `*` in `path`. What is of a resource without it is dropped, and so is,
    /// logged and counted as failed, what has a value that names no file that can be written: a folder, a link to nothing, a
    /// file of somebody else.
    #[arg(default = "fileexporter.path_segment")]
    resource_attribute: String,
    /// How many files are open at once.
    #[arg(default = 100)]
    max_open_files: u32,
}

impl FileArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let mut require = |holds, arguments: &[&'static str], text: &str| errors.require(holds, arguments, text);
        require(self.encoding.is_empty(), &["encoding"], "encoding parameter is not yet supported");
        require(!self.path.is_empty(), &["path"], "path must be non-empty");
        require(
            !self.append || self.compression.is_empty(),
            &["append", "compression"],
            "append and compression enabled at the same time is not supported",
        );
        require(
            !self.append || self.rotation.is_none(),
            &["append", "rotation"],
            "append and rotation enabled at the same time is not supported",
        );
        require(matches!(&*self.format, "json" | "proto"), &["format"], "format type is not supported");
        require(matches!(&*self.compression, "" | "zstd"), &["compression"], "compression is not supported");
        require(self.flush_interval.nanoseconds >= 0, &["flush_interval"], "flush_interval must be larger than zero");
        if self.group_by.enabled {
            require(
                self.path.matches('*').count() == 1,
                &["path", "group_by"],
                "path must contain exactly one * when group_by is enabled",
            );
            require(
                !self.path.starts_with('*'),
                &["path", "group_by"],
                "path must not start with * when group_by is enabled",
            );
            require(
                !self.group_by.resource_attribute.is_empty(),
                &["group_by"],
                "resource_attribute must not be empty when group_by is enabled",
            );
        }
        errors.into_result()
    }

    fn manner(&self) -> Manner {
        let rotation = self.rotation.as_ref().filter(|_| !self.group_by.enabled).map(|rotation| Rotation {
            bytes_max: u64::from(if rotation.max_megabytes == 0 { 100 } else { rotation.max_megabytes }) << 20,
            age_max: Duration::from_secs(86_400 * u64::from(rotation.max_days)),
            files_max: rotation.max_backups as usize,
            localtime: rotation.localtime,
        });
        let folders = match (self.group_by.enabled, &rotation) {
            (true, _) | (false, Some(_)) => Some(0o755),
            (false, None) => None,
        };
        let since = SystemTime::now().checked_sub(CLOCK_TICK).filter(|_| self.group_by.enabled);
        let framing = match (&*self.format, &*self.compression) {
            (_, "zstd") => Framing::Packed,
            ("json", _) => Framing::Lines,
            _ => Framing::Messages,
        };
        let chosen_below = Paths::new(self).chosen_below();
        Manner { append: self.append, since, folders, rotation, framing, chosen_below }
    }

    /// Writes one request as it stands in a file.
    fn encode<R: Record>(&self, batch: &Batch<R>) -> Result<Vec<u8>, String> {
        let is_json = self.format == "json";
        let message = if is_json {
            let mut json = batch.to_json();
            if self.compression.is_empty() {
                json.push(b'\n');
                return Ok(json);
            }
            json
        } else {
            batch.message().flatten().copied().collect()
        };
        let message = if self.compression.is_empty() {
            message
        } else {
            let level = self.compression_params.as_ref().and_then(|params| u32::try_from(params.level).ok());
            Coding::Zstd.pack(level, [&message[..]]).map_err(|error| error.to_string())?
        };
        let len = u32::try_from(message.len()).map_err(|_| "the message has more than 4 GiB")?;
        Ok([&len.to_be_bytes()[..], &message].concat())
    }
}

/// The component.
pub struct FileExporter {
    inlets: Arc<Inlets>,
    ends: Arc<LocalEnds>,
    files: Arc<Mutex<Files>>,
    task: Task,
}

/// What is to be put in place.
pub struct Prepared {
    inlets: Arc<Inlets>,
    arguments: FileArguments,
}

impl Component for FileExporter {
    const NAME: &'static str = "otelcol.exporter.file";
    const STABILITY: Stability = Stability::PublicPreview;
    type Arguments = FileArguments;
    type Exports = Input;
    type Prepared = Prepared;

    async fn prepare(
        arguments: FileArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Input), Error> {
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, arguments }, exports))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlets, arguments } = prepared;
        let (before, ends) = match current {
            Some(current) => {
                current.task.ask_to_stop();
                (Some(current.files), current.ends)
            }
            None => (None, LocalEnds::new(cx, "file")),
        };
        ends.set_url(&url_of(&arguments.path));
        let files = Arc::new(Mutex::new(Files {
            paths: Paths::new(&arguments),
            manner: arguments.manner(),
            open_max: (arguments.group_by.max_open_files as usize).max(1),
            writers: IndexMap::new(),
            before,
            health: Arc::clone(cx.health()),
            failing: None,
            dropped: Dropped::default(),
            logger: cx.logger().clone(),
        }));
        let bytes_max = arguments.manner().rotation.map(|rotation| rotation.bytes_max);
        let paths = Paths::new(&arguments);
        let to = Arc::new(To { arguments: arguments.clone(), paths, bytes_max, files: Arc::clone(&files) });
        inlets.attach(Stages {
            traces: Some(Arc::new(Stage::new::<Traces>(&to, &ends.traces, cx))),
            metrics: Some(Arc::new(Stage::new::<OtlpMetrics>(&to, &ends.metrics, cx))),
            logs: Some(Arc::new(Stage::new::<OtlpLogs>(&to, &ends.logs, cx))),
        });
        let every = Duration::from_nanos(u64::try_from(arguments.flush_interval.nanoseconds).unwrap_or_default());
        let flushed = Arc::clone(&files);
        let task = cx.spawn("flush", move |stop| flush_every(Arc::clone(&flushed), every, stop));
        FileExporter { inlets, ends, files, task }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
        self.task.stop().await;
        // The last share of the files writes what they hold.
        let files = self.files;
        with(files, Files::close).await;
    }
}

/// How often files that could not be opened or written are tried again where nothing is written by time.
const RETRY_EVERY: Duration = Duration::from_secs(1);

async fn flush_every(files: Arc<Mutex<Files>>, every: Duration, mut stop: Stop) -> Result<(), String> {
    with(Arc::clone(&files), Files::start).await;
    let wait = if every.is_zero() { RETRY_EVERY } else { every };
    while stop.sleep(wait).await {
        with(Arc::clone(&files), move |files| {
            if !every.is_zero() || files.failing.is_some() {
                files.flush();
            }
        })
        .await;
    }
    Ok(())
}

/// Does something with the files on a thread that serves no connections.
async fn with<T: Send + 'static>(
    files: Arc<Mutex<Files>>,
    work: impl FnOnce(&mut Files) -> T + Send + 'static,
) -> Option<T> {
    let mut files = files.lock_owned().await;
    tokio::task::spawn_blocking(move || work(&mut files)).await.ok()
}

/// Where what is of a resource goes.
#[derive(Debug)]
enum Paths {
    One(String),
    Several { prefix: String, suffix: String, attribute: String },
}

impl Paths {
    fn new(arguments: &FileArguments) -> Self {
        match arguments.path.split_once('*').filter(|_| arguments.group_by.enabled) {
            None => Paths::One(arguments.path.clone()),
            Some((prefix, suffix)) => Paths::several(prefix, suffix, &arguments.group_by.resource_attribute),
        }
    }

    fn several(prefix: &str, suffix: &str, attribute: &str) -> Self {
        let slash = if prefix.ends_with('/') && prefix != "/" { "/" } else { "" };
        Paths::Several { prefix: clean(prefix) + slash, suffix: suffix.to_owned(), attribute: attribute.to_owned() }
    }

    /// The folder below which values of the attribute choose the names, if they do.
    fn chosen_below(&self) -> Option<PathBuf> {
        let Paths::Several { prefix, .. } = self else { return None };
        Some(match prefix.rsplit_once('/') {
            Some(("", _)) => "/".into(),
            Some((folder, _)) => folder.into(),
            None => PathBuf::new(),
        })
    }

    /// The file for a value of the attribute: never one beside those that the path allows.
    fn of(&self, segment: &str) -> String {
        let (prefix, suffix) = match self {
            Paths::One(path) => return path.clone(),
            Paths::Several { prefix, suffix, .. } => (prefix, suffix),
        };
        let segment = match segment.strip_prefix('.') {
            Some(rest) if rest.starts_with('/') => rest,
            Some(rest) if rest.starts_with("./") => &rest[1..],
            _ => segment,
        };
        let path = clean(&format!("{prefix}{segment}{suffix}"));
        if path.starts_with(prefix) {
            return path;
        }
        clean(&format!("{prefix}/{}", clean(&format!("/{segment}{suffix}"))))
    }
}

/// The shortest path that means the same, without a look at the file system.
fn clean(path: &str) -> String {
    let is_rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if is_rooted => {}
            part => kept.push(part),
        }
    }
    match (is_rooted, kept.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}

/// The files that are open.
#[derive(Debug)]
struct Files {
    paths: Paths,
    manner: Manner,
    open_max: usize,
    /// By path; the one that was used last stands last.
    writers: IndexMap<String, Writer>,
    /// Those of the settings before, until they are written.
    before: Option<Arc<Mutex<Files>>>,
    health: Arc<HealthBoard>,
    /// Why something could not be written the last time.
    failing: Option<String>,
    /// What was dropped since that was said last.
    dropped: Dropped,
    logger: Logger,
}

/// What is dropped because its sender chose a name that no file can have.
#[derive(Debug, Default)]
struct Dropped {
    items: usize,
    /// The last of the files, and why it is none.
    last: Option<(String, String)>,
    said: Option<Instant>,
}

/// How often the log says at most that telemetry is dropped.
const DROPPED_EVERY: Duration = Duration::from_secs(1);

impl Dropped {
    fn add(&mut self, items: usize, path: &str, why: String) {
        self.items += items;
        self.last = Some((path.to_owned(), why));
    }

    fn say(&mut self, logger: &Logger) {
        if self.said.is_some_and(|said| said.elapsed() < DROPPED_EVERY) {
            return;
        }
        let Some((path, err)) = self.last.take() else { return };
        self.said = Some(Instant::now());
        let items = std::mem::take(&mut self.items);
        let fields = [("path", path.into()), ("err", err.into()), ("dropped_items", items.into())];
        logger.error("dropped telemetry that names no file", &fields);
    }
}

/// What is to be written to one file.
struct Message {
    path: String,
    bytes: Vec<u8>,
    /// How many spans, data points or log records it holds.
    items: usize,
}

impl Files {
    /// Opens the file, if there is but one.
    fn start(&mut self) {
        // Something may have failed already.
        if self.failing.is_none() {
            self.health.set_reported(Some(started()));
        }
        if let Paths::One(path) = &self.paths {
            let path = path.clone();
            let outcome = self.writer(&path).map(|writer| writer.open()).and_then(|opened| opened);
            self.report(&outcome);
        }
    }

    /// Takes messages, and says how many items it dropped. When it fails, messages before the one that fails may have been
    /// taken.
    fn append<R: Record>(
        &mut self,
        messages: &[Message],
        batch: Batch<R>,
        end: &Arc<LocalEnd>,
        handed_on: &mut HandedOn,
    ) -> Result<usize, String> {
        let mut dropped = 0;
        // All the files of one part are open at once.
        for part in messages.chunks(self.open_max) {
            let mut open = Vec::with_capacity(part.len());
            for message in part {
                let Message { path, bytes, items } = message;
                match self.writer(path).and_then(|writer| writer.make_room(bytes.len())) {
                    Ok(()) => open.push(message),
                    Err(failure) if failure.is_of_name => {
                        // A sender chose that name: what it sent must not hold up the others for ever.
                        dropped += items;
                        self.dropped.add(*items, path, failure.why);
                        self.dropped.say(&self.logger);
                        self.writers.shift_remove(path);
                    }
                    Err(failure) => {
                        let why = failure.why.clone();
                        self.report(&Err(failure));
                        return Err(why);
                    }
                }
            }
            let mut outcome = Ok(());
            for Message { path, bytes, items } in open {
                if let Some(writer) = self.writers.get_mut(path) {
                    writer.append(bytes, batch.acks.clone(), end.take(*items, bytes.len()));
                    handed_on.add(*items);
                    if writer.is_full() {
                        outcome = outcome.and(writer.flush());
                    }
                }
            }
            self.report(&outcome);
        }
        // Only time or further data write them: nobody is to wait for that. Each file has a share of its own.
        batch.acks.hold();
        batch.acks.safe();
        Ok(dropped)
    }

    /// The file of a path.
    fn writer(&mut self, path: &str) -> Result<&mut Writer, Failure> {
        self.write_before(path)?;
        match self.writers.get_index_of(path) {
            Some(at) => {
                let last = self.writers.len() - 1;
                self.writers.move_index(at, last);
            }
            None => {
                while self.writers.len() >= self.open_max {
                    if let Some((_, oldest)) = self.writers.get_index_mut(0) {
                        oldest.flush()?;
                    }
                    self.writers.shift_remove_index(0);
                }
                self.writers.insert(
                    path.to_owned(),
                    Writer::new(PathBuf::from(path), self.manner.clone(), self.logger.clone()),
                );
            }
        }
        let missing = || Failure { why: "the file is not open".to_owned(), is_of_name: false };
        self.writers.get_mut(path).ok_or_else(missing)
    }

    /// Writes what the files of the settings before still hold. One that cannot be written keeps nothing but itself from
    /// going on: the settings may be others because of it.
    ///
    /// # Errors
    ///
    /// Why this file cannot be written, which is to go on behind what was to be written to it before.
    fn write_before(&mut self, path: &str) -> Result<(), Failure> {
        let Some(before) = self.before.take() else { return Ok(()) };
        let mut files = before.blocking_lock();
        files.flush();
        let holds_back = files.writers.get(path).is_some_and(|writer| !writer.is_clear());
        let why = holds_back.then(|| files.failing.clone().unwrap_or_default());
        let is_written = files.is_clear();
        drop(files);
        if !is_written {
            self.before = Some(before);
        }
        why.map_or(Ok(()), |why| Err(Failure { why, is_of_name: false }))
    }

    /// Whether everything was written.
    fn is_clear(&self) -> bool {
        self.before.is_none() && self.writers.values().all(Writer::is_clear)
    }

    fn flush(&mut self) {
        let path = match &self.paths {
            Paths::One(path) => path.clone(),
            // None of them is to be written just now.
            Paths::Several { .. } => String::new(),
        };
        let mut outcome = self.write_before(&path);
        if matches!(self.paths, Paths::One(_)) && self.failing.is_some() {
            // What could not be opened at the start is tried again.
            outcome = outcome.and(self.writers.values_mut().try_for_each(Writer::open));
        }
        let mut does = matches!(self.paths, Paths::One(_));
        for writer in self.writers.values_mut() {
            does |= !writer.is_clear();
            outcome = outcome.and(writer.flush());
        }
        // What could not be opened is not well because nothing was to be written.
        if does {
            self.report(&outcome);
        }
        self.dropped.say(&self.logger);
    }

    fn close(&mut self) {
        self.flush();
        if let Some(before) = self.before.take() {
            before.blocking_lock().close();
        }
        let lost = self.writers.values().filter(|writer| !writer.is_clear()).count();
        if lost > 0 {
            let why = self.failing.clone().unwrap_or_default();
            self.logger.error("telemetry could not be written", &[("files", lost.into()), ("err", why.into())]);
        }
        self.writers.clear();
    }

    /// Makes what came of something the component's health.
    fn report(&mut self, outcome: &Result<(), Failure>) {
        match outcome {
            Ok(()) if self.failing.take().is_some() => self.health.set_reported(Some(started())),
            Ok(()) => {}
            Err(failure) if self.failing.as_ref() == Some(&failure.why) => {}
            Err(Failure { why, .. }) => {
                self.logger.error("cannot write telemetry", &[("err", why.into())]);
                self.health.set_reported(Some(Health::now(HealthState::Unhealthy, why)));
                self.failing = Some(why.clone());
            }
        }
    }
}

fn started() -> Health {
    Health::now(HealthState::Healthy, "started scheduled components")
}

/// What takes telemetry of a signal.
struct Stage {
    to: Arc<To>,
    end: Arc<LocalEnd>,
    counted: Counted,
}

/// Why telemetry is dropped: it has no attribute that says to which file it goes.
const NO_ATTRIBUTE: &str = "no attribute for the file";
/// The attribute names no file that there can be.
const NO_FILE: &str = "names no file";

impl Stage {
    fn new<S: OtlpSignal>(to: &Arc<To>, end: &Arc<LocalEnd>, cx: &Context<FileExporter>) -> Self {
        Stage { to: Arc::clone(to), end: Arc::clone(end), counted: Counted::new::<_, S>(cx, "file") }
    }
}

/// The URL of a path, if it is one.
fn url_of(path: &str) -> String {
    if path.starts_with('/') { format!("file://{path}") } else { String::new() }
}

/// Where telemetry goes, and how it is written.
struct To {
    arguments: FileArguments,
    paths: Paths,
    /// How long a message is at most.
    bytes_max: Option<u64>,
    files: Arc<Mutex<Files>>,
}

impl<S: OtlpSignal> Consume<S> for Stage {
    fn consume(&self, batch: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let items = batch.items();
            let mut pass = self.end.row().pass();
            match self.to.take(batch, &self.end).await {
                Ok((unnamed, dropped)) => {
                    pass.dropped(NO_ATTRIBUTE, unnamed);
                    pass.dropped(NO_FILE, dropped);
                    self.counted.count(items.saturating_sub(dropped), &Ok(()));
                    self.counted.refused(dropped);
                    pass.end(Ok(()))
                }
                Err(error) => {
                    self.counted.count(items, &Err(error.clone()));
                    Err(error)
                }
            }
        })
    }
}

impl To {
    /// Writes what there is of a request, and says how many items were dropped: those that have no attribute for the file, and
    /// those that name none.
    async fn take<R: Record>(&self, batch: Batch<R>, end: &Arc<LocalEnd>) -> Result<(usize, usize), ConsumeError> {
        let refused = |reason: String| ConsumeError::Refused { reason };
        let messages = self.messages(&batch).map_err(refused)?;
        let named: usize = messages.iter().map(|message| message.items).sum();
        let unnamed = batch.items().saturating_sub(named);
        for Message { bytes, .. } in &messages {
            if let Some(max) = self.bytes_max.filter(|max| bytes.len() as u64 > *max) {
                return Err(refused(format!("write length {} exceeds maximum file size {max}", bytes.len())));
            }
        }
        let end = Arc::clone(end);
        // It is done also where nobody waits for it any more. What was taken then counts when its outcome is let go.
        let appended = with(Arc::clone(&self.files), move |files| {
            let mut handed_on = HandedOn::nothing(end.row());
            (files.append(&messages, batch, &end, &mut handed_on), handed_on)
        });
        let retry = |reason: String| ConsumeError::Retry { after: None, reason };
        let appended = appended.await.ok_or_else(|| retry("writing was interrupted by shutdown".to_owned()))?;
        let (outcome, handed_on) = appended;
        let dropped = outcome.map_err(retry)?;
        handed_on.for_good();
        Ok((unnamed, dropped))
    }

    /// What is to be written to which file.
    fn messages<R: Record>(&self, batch: &Batch<R>) -> Result<Vec<Message>, String> {
        let message =
            |path, batch: &Batch<R>| Ok(Message { path, bytes: self.arguments.encode(batch)?, items: batch.items() });
        let Paths::Several { attribute, .. } = &self.paths else {
            return Ok(vec![message(self.paths.of(""), batch)?]);
        };
        let mut groups: IndexMap<String, Vec<Data<R>>> = IndexMap::new();
        for data in batch.data() {
            let mut of_data: IndexMap<String, Vec<_>> = IndexMap::new();
            for of in &data.resources {
                // What has no such attribute is dropped, as in the reference.
                if let Some(Value::Str(segment)) = data.arena.get(of.resource.attributes, attribute.as_bytes()) {
                    of_data.entry(self.paths.of(&data.arena.text(segment))).or_default().push(of.clone());
                }
            }
            for (path, resources) in of_data {
                groups.entry(path).or_default().push(Data { arena: data.arena.clone(), resources });
            }
        }
        let encoded = |(path, parts): (String, Vec<Data<R>>)| {
            message(path, &Batch::empty(Arc::clone(&batch.context)).with(parts))
        };
        groups.into_iter().map(encoded).collect()
    }
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_otlp::{LogRecord, Span};
    use corten_signal::acks::{Answer, waiter};
    use corten_signal::{Kind, Receiver};
    use corten_testkit::{Unit, World, host, otlp, until};

    use super::super::testing::{books, settles};
    use super::*;

    async fn start(world: World, body: &str) -> Result<Unit, String> {
        Unit::start(world, &Definition::of::<FileExporter>(), body).await
    }

    fn entrance(unit: &Unit) -> Receiver<OtlpLogs> {
        unit.world.consumer("input").logs
    }

    fn logs(text: &str) -> Batch<LogRecord> {
        otlp(&document(text))
    }

    fn document(text: &str) -> String {
        format!(
            r#"{{"resourceLogs":[{{"resource":{{}},"scopeLogs":[{{"scope":{{}},"logRecords":[{{"body":{{"stringValue":"{text}"}}}}]}}]}}]}}"#
        )
    }

    fn read(path: &std::path::Path) -> String {
        String::from_utf8(std::fs::read(path).unwrap_or_default()).unwrap()
    }

    #[tokio::test]
    async fn each_request_is_a_line_and_who_waits_for_safety_is_told_when_it_is_written() {
        let world = host("otelcol.exporter.file.a");
        let path = world.write("out", "before");
        let unit = start(world, &format!("path = {path:?}\nflush_interval = \"50ms\"")).await.unwrap();
        let (acks, mut told) = waiter();
        let mut batch = logs("one");
        batch.acks = acks;
        entrance(&unit).consume(batch).await.unwrap();
        let answer = told.wait(Duration::from_millis(1)).await;
        assert!(matches!(answer, Answer::Held | Answer::Safe), "{answer:?}");
        unit.world
            .consumer("input")
            .traces
            .consume(otlp::<Span>(r#"{"resourceSpans":[{"schemaUrl":"x"}]}"#))
            .await
            .unwrap();
        until("both are written", || read(&path).lines().count() == 2).await;
        let text = read(&path);
        assert_eq!(text.lines().next(), Some(String::from_utf8(logs("one").to_json()).unwrap().as_str()));
        assert!(text.lines().nth(1).unwrap().starts_with("{\"resourceSpans\":["), "{text}");
        assert_eq!(unit.world.health_text(), "healthy: started scheduled components");
        settles(&unit, Kind::OtelLog, "taken 1, out 1 | offered 1, delivered 1").await;
        let end = unit.world.balance().ends.remove(0);
        assert_eq!((end.url, end.oldest_ms, end.pending_bytes), (format!("file://{}", path.display()), None, 0));
    }

    #[tokio::test]
    async fn the_end_of_the_component_and_other_arguments_write_what_was_gathered() {
        let world = host("otelcol.exporter.file.a");
        let (one, two) = (world.path("one"), world.path("two"));
        let mut unit = start(world, &format!("path = {one:?}\nflush_interval = \"0s\"")).await.unwrap();
        let to = entrance(&unit);
        to.consume(logs("a")).await.unwrap();
        unit.update(&format!("path = {two:?}\nflush_interval = \"1h\"\nappend = true")).await.unwrap();
        until("the first is written", || read(&one).contains("\"a\"")).await;
        to.consume(logs("b")).await.unwrap();
        settles(&unit, Kind::OtelLog, "taken 2, out 2 | offered 2, delivered 1, pending 1").await;
        assert!(unit.world.balance().ends[0].oldest_ms.is_some());
        unit.drain().await;
        assert!(read(&two).contains("\"b\"") && !read(&two).contains("\"a\""));
    }

    #[tokio::test]
    async fn messages_stand_behind_their_length() {
        for (settings, coding) in [
            ("format = \"proto\"", None),
            ("format = \"proto\"\ncompression = \"zstd\"", Some(Coding::Zstd)),
            ("compression = \"zstd\"\ncompression_params {\nlevel = 3\n}", Some(Coding::Zstd)),
        ] {
            let world = host("otelcol.exporter.file.a");
            let path = world.path("out");
            let mut unit = start(world, &format!("path = {path:?}\n{settings}")).await.unwrap();
            for text in ["one", "two"] {
                entrance(&unit).consume(logs(text)).await.unwrap();
            }
            unit.drain().await;
            let bytes = std::fs::read(&path).unwrap();
            let mut rest = &bytes[..];
            for text in ["one", "two"] {
                let (len, after) = rest.split_at(4);
                let len = u32::from_be_bytes(len.try_into().unwrap()) as usize;
                let message =
                    coding.map_or_else(|| after[..len].to_vec(), |it| it.unpack(&after[..len], 1000).unwrap());
                let want = if settings.contains("proto") {
                    logs(text).message().flatten().copied().collect()
                } else {
                    logs(text).to_json()
                };
                assert_eq!(message, want, "{settings}");
                rest = &after[len..];
            }
            assert!(rest.is_empty());
        }
    }

    #[tokio::test]
    async fn resources_go_to_files_of_their_own() {
        let world = host("otelcol.exporter.file.a");
        let dir = world.path("out");
        let body = format!(
            "path = {:?}\ngroup_by {{\nenabled = true\nmax_open_files = 1\nresource_attribute = \"f\"\n}}",
            dir.join("*.json")
        );
        let mut unit = start(world, &body).await.unwrap();
        let of = |segment: &str, text: &str| of("f", segment, text);
        for round in ["1", "2"] {
            let resources = [
                of("a", &format!("x{round}")),
                of("sub/b", &format!("y{round}")),
                of("a", &format!("z{round}")),
                of("../../etc/c", "w"),
                of("a.json/d", "not there"),
                r#"{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"none"}}]}]}"#.to_owned(),
            ];
            let batch = otlp::<LogRecord>(&format!(r#"{{"resourceLogs":[{}]}}"#, resources.join(",")));
            entrance(&unit).consume(batch).await.unwrap();
        }
        let want = "taken 12, out 8, dropped {names no file: 2, no attribute for the file: 2}";
        assert_eq!(unit.world.balance_of(Kind::OtelLog), want);
        unit.drain().await;
        let a = read(&dir.join("a.json"));
        assert_eq!(a.lines().count(), 2, "{a}");
        assert!(["x1", "z1", "x2", "z2"].iter().all(|text| a.contains(text)) && !a.contains("y1"), "{a}");
        assert!(read(&dir.join("sub/b.json")).contains("y2"));
        assert!(read(&dir.join("etc/c.json")).contains('w'));
    }

    /// A resource with an attribute, and a record of it.
    fn of(attribute: &str, segment: &str, text: &str) -> String {
        format!(
            r#"{{"resource":{{"attributes":[{{"key":"{attribute}","value":{{"stringValue":"{segment}"}}}}]}},"scopeLogs":[{{"logRecords":[
               {{"body":{{"stringValue":"{text}"}}}}]}}]}}"#
        )
    }

    fn sum(unit: &Unit, name: &str, label: &str) -> f64 {
        let text = unit.world.metrics().text();
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    const SEGMENT: &str = "fileexporter.path_segment";

    #[cfg(unix)]
    #[tokio::test]
    async fn a_name_that_leads_nowhere_is_dropped_counted_and_holds_up_nobody() {
        let world = host("otelcol.exporter.file.a");
        let dir = world.path("out");
        std::fs::create_dir_all(&dir).unwrap();
        for (link, to) in [("loop.json", "loop.json"), ("nowhere.json", "not/there"), ("deep", "deep")] {
            std::os::unix::fs::symlink(to, dir.join(link)).unwrap();
        }
        std::fs::create_dir_all(dir.join("folder.json")).unwrap();
        let body = format!("path = {:?}\ngroup_by {{\nenabled = true\n}}", dir.join("*.json"));
        let mut unit = start(world, &body).await.unwrap();
        for _ in 0..25 {
            let segments = ["a", "loop", "nowhere", "deep/x", "folder", "b"].map(|segment| of(SEGMENT, segment, "x"));
            let batch = otlp::<LogRecord>(&format!(r#"{{"resourceLogs":[{}]}}"#, segments.join(",")));
            entrance(&unit).consume(batch).await.unwrap();
        }
        unit.drain().await;
        assert_eq!((read(&dir.join("a.json")).lines().count(), read(&dir.join("b.json")).lines().count()), (25, 25));
        assert_eq!(sum(&unit, "otelcol_exporter_sent_log_records_total", ""), 50.0);
        let failed = "otelcol_exporter_send_failed_log_records_total";
        assert_eq!(sum(&unit, failed, "error_permanent=\"true\""), 100.0);
        assert_eq!(sum(&unit, failed, ""), 100.0);
        assert_eq!(unit.world.balance_of(Kind::OtelLog), "taken 150, out 50, dropped {names no file: 100}");
        let logged = unit.world.logs();
        let said = logged.matches("dropped telemetry that names no file").count();
        assert!((1..10).contains(&said), "{logged}");
        assert!(logged.contains("dropped_items=1"), "{logged}");
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_folder_that_is_named_is_no_reason_to_drop_anything() {
        let world = host("otelcol.exporter.file.a");
        let dir = world.write("out", "a file");
        let body = format!("path = {:?}\ngroup_by {{\nenabled = true\n}}", dir.join("*.json"));
        let unit = start(world.clone(), &body).await.unwrap();
        let batch = || otlp::<LogRecord>(&format!(r#"{{"resourceLogs":[{}]}}"#, of(SEGMENT, "a", "x")));
        let error = entrance(&unit).consume(batch()).await.unwrap_err();
        assert!(matches!(error, ConsumeError::Retry { .. }), "{error:?}");
        assert!(world.health_text().starts_with("unhealthy: mkdir "), "{}", world.health_text());
        std::fs::remove_file(&dir).unwrap();
        entrance(&unit).consume(batch()).await.unwrap();
        until("it is written", || read(&dir.join("a.json")).lines().count() == 1).await;
        assert_eq!(world.health_text(), "healthy: started scheduled components");
    }

    #[tokio::test]
    async fn a_file_goes_on_behind_its_last_whole_message() {
        let world = host("otelcol.exporter.file.a");
        let path = world.path("out");
        let body = format!("path = {path:?}\nformat = \"proto\"\nappend = true");
        for (text, cut) in [("one", 0), ("two", 3), ("three", 0)] {
            let mut unit = start(world.clone(), &body).await.unwrap();
            entrance(&unit).consume(logs(text)).await.unwrap();
            unit.drain().await;
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
        }
        let message = |text: &str| logs(text).message().flatten().copied().collect::<Vec<u8>>();
        let [one, two, three] = ["one", "two", "three"].map(message);
        let framed = |message: &[u8]| [&(message.len() as u32).to_be_bytes()[..], message].concat();
        assert_eq!(std::fs::read(&path).unwrap(), [framed(&one), framed(&three)].concat());
        let cut = format!("bytes={}", framed(&two).len() - 3);
        assert!(world.logs().contains(&cut), "{}", world.logs());
    }

    #[test]
    fn no_value_leads_out_of_the_folder() {
        let paths = |path: &str| {
            let (prefix, suffix) = path.split_once('*').unwrap();
            Paths::several(prefix, suffix, "a")
        };
        for (path, segment, want) in [
            ("/tmp/*.log", "a", "/tmp/a.log"),
            ("/tmp/*.log", "./a", "/tmp/a.log"),
            ("/tmp/*.log", "../a", "/tmp/a.log"),
            ("/tmp/*.log", "../../a", "/tmp/a.log"),
            ("/tmp/*.log", "b/../../a", "/tmp/a.log"),
            ("/tmp/group_*", "../a", "/tmp/group_/a"),
            ("./data/*/x.json", "a", "data/a/x.json"),
            ("data/*", "..", "data"),
            ("/*", "../../etc/x", "/etc/x"),
        ] {
            assert_eq!(paths(path).of(segment), want, "{path} {segment}");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_full_disk_is_the_components_health_and_what_follows_is_to_be_sent_again() {
        let world = host("otelcol.exporter.file.a");
        let unit = start(world.clone(), "path = \"/dev/full\"\nflush_interval = \"10ms\"").await.unwrap();
        entrance(&unit).consume(logs(&"x".repeat(70_000))).await.unwrap();
        let why = "write /dev/full: no space left on device";
        until("it is known", || world.health_text() == format!("unhealthy: {why}")).await;
        assert_eq!(entrance(&unit).consume(logs("y")).await.unwrap_err().to_string(), why);
        assert_eq!(books(&unit, Kind::OtelLog), "taken 1, out 1 | offered 1, pending 1");
        let answer = unit.world.balance().ends.remove(0).last_answer;
        assert_eq!(answer.map(|(_, text)| text).as_deref(), Some(why));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_was_taken_of_a_request_that_failed_is_taken_twice() {
        let world = host("otelcol.exporter.file.a");
        let dir = world.path("out");
        std::fs::create_dir_all(&dir).unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.join("full.json")).unwrap();
        let body = format!(
            "path = {:?}\nflush_interval = \"0s\"\ngroup_by {{\nenabled = true\nmax_open_files = 1\n}}",
            dir.join("*.json")
        );
        let unit = start(world, &body).await.unwrap();
        let batch = |segments: &[&str]| {
            let segments: Vec<String> = segments.iter().map(|segment| of(SEGMENT, segment, "x")).collect();
            otlp::<LogRecord>(&format!(r#"{{"resourceLogs":[{}]}}"#, segments.join(",")))
        };
        // The first file of a request takes its place from the one that cannot be written, and fails it.
        entrance(&unit).consume(batch(&["full"])).await.unwrap();
        assert!(entrance(&unit).consume(batch(&["full", "a"])).await.is_err());
        let want = "taken 1, out 2, created {sent again: 1} | offered 2, pending 2";
        assert_eq!(books(&unit, Kind::OtelLog), want);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_opened_is_tried_again() {
        let world = host("otelcol.exporter.file.a");
        let path = world.path("folder/out");
        let unit = start(world.clone(), &format!("path = {path:?}\nflush_interval = \"10ms\"")).await.unwrap();
        let why = format!("open {}: no such file or directory", path.display());
        until("it is known", || world.health_text() == format!("unhealthy: {why}")).await;
        assert_eq!(entrance(&unit).consume(logs("a")).await.unwrap_err().to_string(), why);
        world.write("folder/other", "");
        until("it is well", || world.health_text() == "healthy: started scheduled components").await;
        entrance(&unit).consume(logs("b")).await.unwrap();
        until("it is written", || read(&path).contains("\"b\"")).await;
    }

    #[tokio::test]
    async fn other_settings_help_where_a_file_cannot_be_opened() {
        let world = host("otelcol.exporter.file.a");
        let (one, two) = (world.path("folder/out"), world.path("out"));
        let mut unit = start(world.clone(), &format!("path = {one:?}\nflush_interval = \"10ms\"")).await.unwrap();
        until("it is known", || world.health_text().starts_with("unhealthy: open ")).await;
        unit.update(&format!("path = {two:?}\nflush_interval = \"10ms\"")).await.unwrap();
        until("it is well", || world.health_text() == "healthy: started scheduled components").await;
        entrance(&unit).consume(logs("a")).await.unwrap();
        until("it is written", || read(&two).contains("\"a\"")).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_a_full_disk_did_not_take_keeps_no_other_file_from_being_written() {
        let world = host("otelcol.exporter.file.a");
        let settings = |path: &std::path::Path| format!("path = {path:?}\nflush_interval = \"10ms\"");
        let mut unit = start(world.clone(), &settings("/dev/full".as_ref())).await.unwrap();
        entrance(&unit).consume(logs("kept")).await.unwrap();
        until("it is known", || world.health_text().starts_with("unhealthy: write ")).await;
        // Its own file waits for what is to stand before.
        unit.update("path = \"/dev/full\"\nflush_interval = \"20ms\"").await.unwrap();
        let error = entrance(&unit).consume(logs("later")).await.unwrap_err().to_string();
        assert_eq!(error, "write /dev/full: no space left on device");
        for name in ["one", "two"] {
            let path = world.path(name);
            unit.update(&settings(&path)).await.unwrap();
            entrance(&unit).consume(logs("a")).await.unwrap();
            until("it is written", || read(&path).contains("\"a\"")).await;
        }
        unit.drain().await;
        assert!(world.logs().contains("telemetry could not be written"), "{}", world.logs());
    }

    #[tokio::test]
    async fn a_message_longer_than_any_file_is_refused() {
        let world = host("otelcol.exporter.file.a");
        let path = world.path("folder/out");
        let unit = start(world, &format!("path = {path:?}\nrotation {{\nmax_megabytes = 1\n}}")).await.unwrap();
        let error = entrance(&unit).consume(logs(&"x".repeat(1 << 20))).await.unwrap_err().to_string();
        assert!(error.starts_with("write length ") && error.ends_with(" exceeds maximum file size 1048576"), "{error}");
        entrance(&unit).consume(logs("a")).await.unwrap();
    }

    #[tokio::test]
    async fn what_contradicts_itself_is_refused() {
        for (body, why) in [
            ("path = \"\"", "path must be non-empty"),
            (
                "path = \"a\"\nappend = true\ncompression = \"zstd\"",
                "append and compression enabled at the same time is not supported",
            ),
            (
                "path = \"a\"\nappend = true\nrotation { }",
                "append and rotation enabled at the same time is not supported",
            ),
            ("path = \"a\"\nformat = \"xml\"", "format type is not supported"),
            ("path = \"a\"\ncompression = \"gzip\"", "compression is not supported"),
            ("path = \"a\"\nflush_interval = \"-1s\"", "flush_interval must be larger than zero"),
            ("path = \"a\"\nencoding = \"x\"", "encoding parameter is not yet supported"),
            ("path = \"a\"\ngroup_by {\nenabled = true\n}", "path must contain exactly one * when group_by is enabled"),
            ("path = \"*\"\ngroup_by {\nenabled = true\n}", "path must not start with * when group_by is enabled"),
            (
                "path = \"a*\"\ngroup_by {\nenabled = true\nresource_attribute = \"\"\n}",
                "resource_attribute must not be empty when group_by is enabled",
            ),
        ] {
            let error = start(host("otelcol.exporter.file.a"), body).await.map(|_| ()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
