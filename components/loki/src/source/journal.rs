//! `loki.source.journal`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_component::metrics::{Counter, Vector};
use corten_component::{Component, Context, DebugInfo, Error, Health, HealthBoard, HealthState, Logger, Stop, Task};
use corten_config::arguments::CheckErrors;
use corten_config::encode::Item;
use corten_config::schema::Stability;
use corten_config::{Arguments, Exports};
use corten_golang::json::{Form, push_string};
use corten_journal::{Cursor, Fields, Journal, Matches, Start};
use corten_signal::ledger::Row;
use corten_signal::relabel::{Action, RelabelRules};
use corten_signal::{Entries, EntriesBuilder, Fanout, LabelsBuilder, Logs, Receiver};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::cursors::{Cursors, key};
use super::feed::{Feed, Sent};
use super::shown::{LastError, attr, block, time_ns};
use super::{OnDrop, SourceLabels};
use crate::dropped::{Drops, Why};
use crate::forward::fanout;

/// How often the journal is looked at when it has nothing new.
const POLL: Duration = Duration::from_millis(250);

/// How often the cursor is saved.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// How long to wait before the journal is opened again when that failed.
const OPEN_WAIT: Duration = Duration::from_secs(10);

/// How long new arguments wait for what is being handed on.
const CHANGE_WAIT: Duration = Duration::from_secs(1);

/// What is read at a time, at most: entries looked at, and bytes of lines.
const READ_ENTRIES_MAX: usize = 2048;
const READ_BYTES_MAX: usize = 1 << 20;

/// Reads the journal of systemd, and sends its entries on.
///
/// The files of the journal are read directly, without systemd's library, so that a container needs no more than the folder.
/// Labels of an entry are those of `labels`, `job`, which is the id of the component, and what `relabel_rules` make of its
/// fields: a field `_SYSTEMD_UNIT` is `__journal__systemd_unit` there, and the name of its priority is
/// `__journal_priority_keyword`. Where reading has come to is kept in the component's folder, and moves on when all components
/// behind have the entries safe.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// Where to send the entries.
    forward_to: Vec<Receiver<Logs>>,
    /// Send all fields of an entry as a JSON object, rather than its message.
    #[arg(default = false)]
    format_as_json: bool,
    /// How old entries may be that are read after a start.
    #[arg(default = "7h")]
    max_age: Duration,
    /// The folder of the journal; that of this machine where it is empty.
    #[arg(default = "")]
    path: String,
    /// Fields that entries must have, `FIELD=value` with spaces between: values of one field are alternatives, different
    /// fields must all be there.
    #[arg(default = "")]
    matches: String,
    /// Labels to set on all entries.
    #[arg(optional)]
    labels: BTreeMap<String, String>,
    /// Rules that make labels of fields, as a `loki.relabel` component exports them.
    #[arg(optional)]
    relabel_rules: RelabelRules,
    /// A cursor of Promtail to begin with when there is none yet.
    #[block]
    legacy_position: Option<LegacyPosition>,
}

impl Config {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if let Err(error) = Matches::parse(&self.matches) {
            errors.push(&["matches"], error.to_string());
        }
        errors.into_result()
    }
}

/// Where Promtail kept its cursor.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct LegacyPosition {
    /// The positions file.
    file: String,
    /// The name of the job.
    name: String,
}

/// Nothing.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Offer {}

/// The component.
#[derive(Debug)]
pub struct JournalSource {
    settings: watch::Sender<Arc<Settings>>,
    task: Task,
}

/// What is to be put in place.
#[derive(Debug)]
pub struct Prepared {
    settings: Settings,
    /// At the first time.
    cursors: Option<Cursors>,
}

/// What entries are read with.
struct Settings {
    forward: Fanout<Logs>,
    path: Option<PathBuf>,
    max_age: Duration,
    matches: Matches,
    making: Arc<Making>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("path", &self.path).field("matches", &self.matches).finish_non_exhaustive()
    }
}

/// How entries are made of what the journal has.
struct Making {
    as_json: bool,
    /// The labels of all.
    fixed: Vec<(String, String)>,
    labels: SourceLabels,
    seen: Seen,
}

/// The labels that the rules look at. Others are never seen by anybody, since their names begin with `__`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// Rules go by the names of labels.
    All,
    These(Vec<String>),
}

impl Component for JournalSource {
    const NAME: &'static str = "loki.source.journal";
    type Arguments = Config;
    type Exports = Offer;
    type Prepared = Prepared;

    async fn prepare(config: Config, cx: &Context<Self>, current: Option<&Self>) -> Result<(Prepared, Offer), Error> {
        let mut cursors = None;
        if current.is_none() {
            let (folder, legacy, key) = (cx.data_dir(), config.legacy_position.clone(), key(cx.id(), ""));
            let loading = tokio::task::spawn_blocking(move || load(&folder, legacy, &key));
            cursors = Some(loading.await.map_err(|error| Error::new(error.to_string()))??);
        }
        let matches = Matches::parse(&config.matches).map_err(|error| Error::new(error.to_string()))?;
        let mut fixed = config.labels;
        // As with the reference, it wins over a label of that name; rules may change it.
        fixed.insert("job".to_owned(), cx.id().to_owned());
        let making = Making {
            as_json: config.format_as_json,
            fixed: fixed.into_iter().collect(),
            labels: SourceLabels::new(&config.relabel_rules, OnDrop::DropEntry, false)?,
            seen: Seen::of(&config.relabel_rules),
        };
        let settings = Settings {
            forward: fanout(cx, config.forward_to),
            path: Some(config.path).filter(|path| !path.is_empty()).map(PathBuf::from),
            max_age: config.max_age,
            matches,
            making: Arc::new(making),
        };
        Ok((Prepared { settings, cursors }, Offer {}))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let settings = Arc::new(prepared.settings);
        if let Some(current) = current {
            current.settings.send_replace(settings);
            return current;
        }
        let (sender, receiver) = watch::channel(settings);
        let registry = cx.metrics();
        let shared = Arc::new(Shared {
            key: key(cx.id(), ""),
            cursors: Mutex::new(prepared.cursors.unwrap_or_default()),
            errors: registry.counters(
                "loki_source_journal_target_parsing_errors_total",
                "Total number of parsing errors while reading journal messages",
                &["error"],
            ),
            lines: registry
                .counter("loki_source_journal_target_lines_total", "Total number of successful journal lines read"),
            damaged: registry.counter(
                "corten_loki_source_journal_damaged_total",
                "Entries and fields that were passed over because the journal is damaged there.",
            ),
            health: Arc::clone(cx.health()),
            logger: cx.logger().clone(),
            row: Arc::clone(cx.ledger().row_of::<Logs>()),
            last_us: AtomicU64::new(0),
            last_error: LastError::default(),
        });
        cx.show_debug_info(Arc::clone(&shared) as Arc<dyn DebugInfo>);
        let task = cx.spawn("journal", move |stop| run(Arc::clone(&shared), receiver.clone(), stop));
        JournalSource { settings: sender, task }
    }

    async fn drain(self, _: &Context<Self>) {
        self.task.stop().await;
    }
}

fn load(folder: &Path, legacy: Option<LegacyPosition>, key: &str) -> Result<Cursors, String> {
    let mut cursors = Cursors::load(folder)?;
    if let Some(legacy) = legacy {
        cursors.import(Path::new(&legacy.file), &legacy.name, key)?;
    }
    Ok(cursors)
}

impl Seen {
    fn of(rules: &RelabelRules) -> Self {
        let mut names = Vec::new();
        for rule in rules.0.iter() {
            match rule.action {
                Action::LabelMap | Action::LabelDrop | Action::LabelKeep => return Seen::All,
                Action::KeepEqual | Action::DropEqual => names.push(rule.target_label.clone()),
                _ => {}
            }
            names.extend(rule.source_labels.iter().cloned());
        }
        Seen::These(names)
    }

    fn sees(&self, name: &str) -> bool {
        match self {
            Seen::All => true,
            Seen::These(names) => names.iter().any(|known| known == name),
        }
    }
}

struct Shared {
    key: String,
    cursors: Mutex<Cursors>,
    errors: Vector<Counter>,
    lines: Counter,
    damaged: Counter,
    health: Arc<HealthBoard>,
    logger: Logger,
    row: Arc<Row>,
    /// The time of the entry that was handed on last, in microseconds since the Unix epoch; 0 before the first.
    last_us: AtomicU64,
    last_error: LastError,
}

impl DebugInfo for Shared {
    fn debug_info(&self) -> Vec<Item> {
        let mut body = vec![attr("is_running", self.health.current().state == HealthState::Healthy)];
        if let Some(cursor) = self.cursors.lock().get(&self.key) {
            body.push(attr("safe_to", cursor));
        }
        let last_us = self.last_us.load(Ordering::Relaxed);
        if last_us > 0 {
            body.push(time_ns("last_entry_at", i64::try_from(last_us.saturating_mul(1000)).unwrap_or(i64::MAX)));
        }
        self.last_error.show(&mut body);
        vec![block("journal_info", body)]
    }
}

impl Shared {
    fn set_health(&self, error: Option<&str>) {
        let health = match error {
            None => Health::now(HealthState::Healthy, "journal tailer is running"),
            Some(error) => {
                self.last_error.note(error);
                Health::now(HealthState::Unhealthy, error)
            }
        };
        self.health.set_reported(Some(health));
    }

    /// Where to begin: behind the entry that was safe last, unless that is too old.
    fn start(&self, max_age: Duration) -> Start {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let oldest = match max_age.is_zero() {
            true => 0,
            false => u64::try_from(since.saturating_sub(max_age).as_micros()).unwrap_or(0),
        };
        let cursors = self.cursors.lock();
        let cursor = cursors.get(&self.key).map(str::parse::<Cursor>);
        match cursor {
            Some(Ok(cursor)) if cursor.realtime_us >= oldest => Start::After(cursor),
            Some(Err(error)) => {
                let error = error.to_string();
                self.logger.warn("cursor is left aside", &[("err", (&error).into())]);
                Start::Realtime(oldest)
            }
            _ => Start::Realtime(oldest),
        }
    }

    /// Says when the folder cannot be listed any more, and when it can again; whether it cannot. What is in it then is read on,
    /// or from its beginning where it is new.
    async fn tell_of_folder(&self, path: Option<PathBuf>, was_gone: bool) -> bool {
        let Some(path) = path else { return false };
        let listing = tokio::task::spawn_blocking(move || {
            let told = |error| format!("cannot read journal {}: {error}", path.display());
            std::fs::read_dir(&path).map(drop).map_err(told)
        });
        let error = listing.await.map_err(|error| error.to_string()).and_then(|listed| listed).err();
        match &error {
            Some(error) if !was_gone => {
                self.logger.error("journal cannot be read", &[("err", error.into())]);
                self.set_health(Some(error));
            }
            None if was_gone => {
                self.logger.info("journal can be read again", &[]);
                self.set_health(None);
            }
            _ => {}
        }
        error.is_some()
    }

    fn note(&self, cursor: Option<Cursor>) {
        if let Some(cursor) = cursor {
            self.cursors.lock().set(&self.key, cursor.to_string());
        }
    }

    /// Saves the cursor if it moved.
    async fn save(&self) {
        let save = {
            let mut cursors = self.cursors.lock();
            if !cursors.changed() {
                return;
            }
            cursors.take_changes()
        };
        let saved = tokio::task::spawn_blocking(move || save.write()).await;
        if let Err(error) = saved.map_err(|error| error.to_string()).and_then(|saved| saved) {
            self.cursors.lock().not_saved();
            self.logger.error("cursor cannot be saved", &[("err", (&error).into())]);
        }
    }
}

/// Reads the journal until it is stopped, anew with each change of the arguments.
async fn run(shared: Arc<Shared>, mut settings: watch::Receiver<Arc<Settings>>, mut stop: Stop) -> Result<(), String> {
    while !stop.is_set() {
        let now = Arc::clone(&settings.borrow_and_update());
        let mut feed = Feed::new(Arc::clone(&shared.row));
        let leave = AtomicBool::new(false);
        let ended = {
            let reading = read_on(&shared, &now, &mut feed, &leave, &mut stop);
            tokio::pin!(reading);
            tokio::select! {
                ended = &mut reading => ended,
                _ = settings.changed() => {
                    // What is being handed on should be taken; but whoever does not take it must not keep the change away.
                    leave.store(true, Ordering::Relaxed);
                    tokio::time::timeout(CHANGE_WAIT, reading).await.unwrap_or(Ok(()))
                }
            }
        };
        feed.end().await;
        shared.note(feed.settled_to());
        shared.save().await;
        let Err(error) = ended else { continue };
        let error = format!("error creating journal tailer: {error}");
        shared.logger.error("error creating journal tailer", &[("err", (&error).into())]);
        shared.set_health(Some(&error));
        tokio::select! {
            _ = stop.sleep(OPEN_WAIT) => {}
            _ = settings.changed() => {}
        }
    }
    Ok(())
}

async fn read_on(
    shared: &Arc<Shared>,
    settings: &Settings,
    feed: &mut Feed<Cursor>,
    leave: &AtomicBool,
    stop: &mut Stop,
) -> Result<(), String> {
    let (path, matches, start) = (settings.path.clone(), settings.matches.clone(), shared.start(settings.max_age));
    let opening = tokio::task::spawn_blocking(move || {
        let mut journal = Journal::open(path.as_deref(), matches).map_err(|error| error.to_string())?;
        journal.seek(start);
        Ok::<_, String>(Reading { journal, damaged: 0, builder: EntriesBuilder::new(), told: BTreeMap::new() })
    });
    let mut reading = opening.await.map_err(|error| error.to_string())??;
    shared.set_health(None);
    let mut saved = tokio::time::Instant::now();
    let mut is_gone = false;
    let mut again = None;
    loop {
        if let Some(wait) = again.take().or_else(|| feed.take_failure()) {
            if !stop.sleep(wait).await {
                return Ok(());
            }
            let from = feed.settled_to().map_or(start, Start::After);
            let seeking = tokio::task::spawn_blocking(move || {
                reading.journal.seek(from);
                reading
            });
            reading = seeking.await.map_err(|error| error.to_string())?;
        }
        let (shared_too, making) = (Arc::clone(shared), Arc::clone(&settings.making));
        let read = tokio::task::spawn_blocking(move || {
            let chunk = reading.read(&making, &shared_too);
            (reading, chunk)
        });
        let mut chunk;
        (reading, chunk) = read.await.map_err(|error| error.to_string())?;
        let idle = chunk.cursor.is_none();
        let sent = match (chunk.entries, chunk.cursor) {
            (Some(entries), Some(cursor)) => {
                let lines = entries.len() as u64;
                let sent = feed.send(&settings.forward, entries, cursor, &shared.logger, stop).await;
                if sent == Sent::Taken {
                    shared.lines.add(lines);
                }
                sent
            }
            (None, Some(cursor)) => feed.skip_to(cursor, stop).await,
            _ => Sent::Taken,
        };
        match sent {
            Sent::Taken => {
                chunk.drops.count(&shared.row, settings.making.labels.rules());
                if let Some(cursor) = chunk.cursor {
                    shared.last_us.store(cursor.realtime_us, Ordering::Relaxed);
                }
            }
            Sent::Again(wait) => again = Some(wait),
            Sent::Stopped => return Ok(()),
        }
        if saved.elapsed() >= SAVE_EVERY {
            saved = tokio::time::Instant::now();
            shared.note(feed.settled_to());
            shared.save().await;
            is_gone = shared.tell_of_folder(settings.path.clone(), is_gone).await;
        }
        if leave.load(Ordering::Relaxed) || (idle && !stop.sleep(POLL).await) {
            return Ok(());
        }
    }
}

/// The journal, on a thread that may block.
struct Reading {
    journal: Journal,
    damaged: u64,
    builder: EntriesBuilder,
    /// What was said last of files that cannot be read.
    told: BTreeMap<PathBuf, String>,
}

/// How many files that cannot be read are remembered.
const TOLD_MAX: usize = 1024;

/// What was read at a time.
struct Chunk {
    entries: Option<Entries>,
    /// The last entry that was looked at.
    cursor: Option<Cursor>,
    drops: Drops,
}

impl Reading {
    fn read(&mut self, making: &Making, shared: &Shared) -> Chunk {
        self.journal.refresh();
        let mut cursor = None;
        let mut drops = Drops::default();
        let mut labels = LabelsBuilder::new();
        let mut line = Vec::new();
        for _ in 0..READ_ENTRIES_MAX {
            let Some(entry) = self.journal.next_entry() else { break };
            cursor = Some(entry.cursor);
            match making.make(entry.fields, &mut labels, &mut line) {
                Ok(stream) => {
                    let part = self.builder.stream(&stream);
                    let span = self.builder.own(&line);
                    let time_ns = i64::try_from(entry.cursor.realtime_us.saturating_mul(1000)).unwrap_or(i64::MAX);
                    self.builder.push(part, time_ns, span);
                }
                Err((error, why)) => {
                    shared.errors.with(&[error]).inc();
                    drops.add(why, 1);
                }
            }
            if self.builder.own_bytes() >= READ_BYTES_MAX || self.builder.is_full() {
                break;
            }
        }
        for (path, error) in self.journal.take_problems() {
            let error = error.to_string();
            if self.told.get(&path) == Some(&error) {
                continue;
            }
            if self.told.len() >= TOLD_MAX {
                self.told.clear();
            }
            self.told.insert(path.clone(), error.clone());
            let path = path.display().to_string();
            shared.logger.warn("journal file cannot be read", &[("path", (&path).into()), ("err", (&error).into())]);
        }
        let damaged = self.journal.damaged();
        shared.damaged.add(damaged.saturating_sub(self.damaged));
        self.damaged = damaged;
        let entries = (!self.builder.is_empty()).then(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.builder.finish(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
        });
        Chunk { entries, cursor, drops }
    }
}

const NO_MESSAGE: &str = "no_message";
const EMPTY_LABELS: &str = "empty_labels";

impl Making {
    /// Makes an entry's line and stream of its fields, or says why there is none: to the metric, and to the books.
    fn make(
        &self,
        fields: &Fields,
        labels: &mut LabelsBuilder,
        line: &mut Vec<u8>,
    ) -> Result<corten_signal::Stream, (&'static str, Why)> {
        line.clear();
        if self.as_json {
            write_json(fields, line);
        } else if let Some((_, message)) = fields.iter().filter(|(name, _)| *name == "MESSAGE").last() {
            line.extend_from_slice(message);
        }
        if line.is_empty() {
            return Err((NO_MESSAGE, Why::Is("no message")));
        }
        labels.clear();
        for (name, value) in &self.fixed {
            labels.push(name, value);
        }
        let mut label = String::from("__journal_");
        for (name, value) in fields.iter() {
            if name == "PRIORITY" && self.seen.sees("__journal_priority_keyword") {
                labels.set("__journal_priority_keyword", priority(&String::from_utf8_lossy(value)));
            }
            label.truncate("__journal_".len());
            label.extend(name.chars().map(|c| c.to_ascii_lowercase()));
            if self.seen.sees(&label) {
                labels.set(&label, &String::from_utf8_lossy(value));
            }
        }
        // Labels that are too large for a stream are as good as none.
        match self.labels.stream(labels, &[]) {
            Ok(outcome) => outcome.map_err(|why| (EMPTY_LABELS, why)),
            Err(_) => Err((EMPTY_LABELS, Why::INVALID_LABELS)),
        }
    }
}

fn priority(number: &str) -> &str {
    match number {
        "0" => "emerg",
        "1" => "alert",
        "2" => "crit",
        "3" => "error",
        "4" => "warning",
        "5" => "notice",
        "6" => "info",
        "7" => "debug",
        other => other,
    }
}

/// Writes the fields as an object: names in order, of a name that is repeated the last value, escaped as Go does for HTML.
fn write_json(fields: &Fields, out: &mut Vec<u8>) {
    let all: BTreeMap<&str, &[u8]> = fields.iter().collect();
    out.push(b'{');
    for (index, (name, value)) in all.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(name.as_bytes(), out);
        out.push(b':');
        write_text(value, out);
    }
    out.push(b'}');
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    push_string(text, Form::ITERATOR_HTML, out);
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use corten_component::Definition;
    use corten_config::decode::Decode as _;
    use corten_signal::relabel::Rule;
    use corten_testkit::{Unit, World, host, until};
    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::super::testing::{Sink, Then, debug_info, until_balance};
    use super::*;

    const JOURNAL: Definition = Definition::of::<JournalSource>();
    const ID: &str = "loki.source.journal.a";

    /// Entries of the journal, and those among them that have no message.
    const ENTRIES: usize = 300;
    const SILENT: usize = 12;

    /// Puts a journal that systemd wrote into a folder of the world.
    fn journal(world: &World) -> String {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/journal/tests/data");
        let mut bytes = Vec::new();
        let file = std::fs::File::open(data.join("zstd-compact.journal.gz")).unwrap();
        GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        world.write("journal/system.journal", bytes);
        world.path("journal").display().to_string()
    }

    fn rule(action: Action, source: &str, regex: &str, target: &str) -> Rule {
        Rule {
            source_labels: vec![source.to_owned()],
            separator: ";".to_owned(),
            regex: regex.into(),
            modulus: 0,
            target_label: target.to_owned(),
            replacement: "$1".to_owned(),
            action,
        }
    }

    async fn start(world: World, more: &str, sink: &Sink, rules: Vec<Rule>) -> Unit {
        let path = journal(&world);
        let body = format!("forward_to = [sink]\nrelabel_rules = rules\npath = {path:?}\n{more}");
        let names = [("sink", sink.value()), ("rules", RelabelRules(rules.into()).to_value())];
        Unit::start_with(world, &JOURNAL, &body, &names).await.unwrap()
    }

    fn errors(unit: &Unit, error: &str) -> f64 {
        let name = "loki_source_journal_target_parsing_errors_total";
        unit.world.metrics().get(name, &[("error", error)]).unwrap_or_default()
    }

    #[tokio::test]
    async fn entries_get_labels_of_their_fields_and_the_components_id_as_job() {
        let sink = Sink::new();
        let rules = vec![
            rule(Action::Replace, "__journal__systemd_unit", "(.*)", "unit"),
            rule(Action::Replace, "__journal_priority_keyword", "(.*)", "level"),
        ];
        let more = "max_age = \"0s\"\nlabels = {job = \"mine\", from = \"journal\"}";
        let unit = start(host(ID), more, &sink, rules).await;
        until("all entries arrive", || sink.shown().len() == ENTRIES - SILENT).await;
        assert_eq!(unit.world.metric("loki_source_journal_target_lines_total"), Some((ENTRIES - SILENT) as f64));
        assert_eq!(errors(&unit, NO_MESSAGE), SILENT as f64);
        let entries = sink.entries();
        let labels = r#"{from="journal", job="loki.source.journal.a", level="info", unit="sshd.service"}"#;
        assert_eq!(entries[0], (1_787_306_400_003_802_000, format!("{labels} line 0: alpha delta")));
        assert!(entries.iter().any(|(_, text)| text.ends_with("\nsecond line \u{e9}")));
        assert_eq!(unit.world.health().message, "journal tailer is running");
        let expected = format!("received {ENTRIES}, out {}, dropped {{no message: {SILENT}}}", ENTRIES - SILENT);
        until_balance(&unit.world, &expected).await;
        let info = debug_info(&unit.world).remove(0);
        assert!(info.contains("is_running=true") && info.contains(" last_entry_at=\"2026-"), "{info}");
    }

    #[tokio::test]
    async fn what_is_dropped_is_counted_and_passed_over_for_good() {
        let sink = Sink::new();
        let rules = || vec![rule(Action::Keep, "__journal_priority_keyword", "emerg", "")];
        let more = "max_age = \"0s\"\nmatches = \"PRIORITY=0 PRIORITY=1 SYSLOG_IDENTIFIER=nginx\"";
        let world = host(ID);
        let mut unit = start(world, more, &sink, rules()).await;
        until("the last entry was looked at", || errors(&unit, EMPTY_LABELS) > 0.0 && !sink.shown().is_empty()).await;
        let before = sink.shown().len();
        unit.drain().await;
        let balance = unit.world.balance_of(corten_signal::Kind::LokiLog);
        assert!(balance.contains(&format!(", out {before}, dropped {{rule 1 keep: ")), "{balance}");
        let saved = std::fs::read_to_string(unit.world.context::<JournalSource>().data_dir().join("cursors")).unwrap();
        assert!(saved.contains("cursor-loki.source.journal.a\ts="), "{saved}");
        // Again, as after a restart: nothing is left.
        let unit = start(unit.world, more, &sink, rules()).await;
        until("it runs", || unit.world.health().message == "journal tailer is running").await;
        corten_testkit::stays("nothing comes twice", super::super::testing::MOMENT, || sink.shown().len() == before)
            .await;
    }

    #[tokio::test]
    async fn a_cursor_of_the_reference_is_where_it_begins() {
        let world = host(ID);
        let path = journal(&world);
        let mut reader = Journal::open(Some(Path::new(&path)), Matches::default()).unwrap();
        let mut cursor = None;
        for _ in 0..290 {
            cursor = reader.next_entry().map(|entry| entry.cursor);
        }
        let text = format!("positions:\n  ? path: cursor-{ID}\n    labels: \"\"\n  : {}\n", cursor.unwrap());
        let folder = world.context::<JournalSource>().data_dir();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("positions.yml"), text).unwrap();
        let sink = Sink::new();
        // The entries are older than that; without a cursor none would be read.
        let _unit = start(world, "max_age = \"876000h\"", &sink, Vec::new()).await;
        until("the rest arrives", || sink.shown().len() == 10).await;
    }

    #[tokio::test]
    async fn entries_that_are_too_old_are_not_read() {
        let sink = Sink::new();
        let unit = start(host(ID), "", &sink, Vec::new()).await;
        until("it runs", || unit.world.health().message == "journal tailer is running").await;
        corten_testkit::stays("nothing comes", super::super::testing::MOMENT, || sink.shown().is_empty()).await;
    }

    #[tokio::test]
    async fn what_was_lost_on_its_way_is_read_again() {
        let sink = Sink::that(Then::Fail);
        let mut unit = start(host(ID), "max_age = \"0s\"", &sink, Vec::new()).await;
        until("a first attempt", || sink.batches() > 0).await;
        *sink.then.lock() = Then::Safe;
        until("a second one", || sink.shown().len() >= 2 * (ENTRIES - SILENT)).await;
        unit.drain().await;
        unit.world.balance();
    }

    #[tokio::test]
    async fn all_fields_are_an_object_in_order() {
        let sink = Sink::new();
        let more = "max_age = \"0s\"\nformat_as_json = true\nmatches = \"TAG=one HTML=x TAG=two\"";
        let _unit = start(host(ID), &more.replace(" HTML=x", ""), &sink, Vec::new()).await;
        until("entries with a repeated field arrive", || sink.shown().len() == 6).await;
        let line = sink.shown()[0].split_once("} ").unwrap().1.to_owned();
        let value: BTreeMap<String, String> = serde_json::from_str(&line).unwrap();
        assert_eq!((&*value["TAG"], &*value["_TRANSPORT"]), ("two", "journal"));
        let names: Vec<&str> = line.split('"').skip(1).step_by(4).collect();
        assert!(names.is_sorted(), "{line}");
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_told_by_health() {
        let sink = Sink::new();
        let body = "forward_to = [sink]\npath = \"/nonexistent/journal\"";
        let unit = Unit::start_with(host(ID), &JOURNAL, body, &[("sink", sink.value())]).await.unwrap();
        until("it says so", || unit.world.health_text().contains("error creating journal tailer: cannot open journal"))
            .await;
    }

    #[tokio::test]
    async fn a_folder_that_vanishes_is_told_by_health_until_it_is_back() {
        let sink = Sink::new();
        let unit = start(host(ID), "max_age = \"0s\"", &sink, Vec::new()).await;
        until("all entries arrive", || sink.shown().len() == ENTRIES - SILENT).await;
        let (folder, away) = (unit.world.path("journal"), unit.world.path("away"));
        std::fs::rename(&folder, &away).unwrap();
        let health = || unit.world.health_text();
        until("it is told", || health().starts_with("unhealthy: cannot read journal ")).await;
        std::fs::rename(&away, &folder).unwrap();
        until("it is well", || health() == "healthy: journal tailer is running").await;
        assert_eq!(unit.world.logs().matches("journal cannot be read").count(), 1);
        assert_eq!(sink.shown().len(), ENTRIES - SILENT);
    }

    #[tokio::test]
    async fn matches_are_checked_at_load() {
        let body = "forward_to = []\nmatches = \"PRIORITY\"";
        let error = Unit::start(host(ID), &JOURNAL, body).await.unwrap_err();
        assert_eq!(error, "test:3:1: incorrect match format: \"PRIORITY\" is not FIELD=value");
    }

    #[test]
    fn only_labels_that_rules_look_at_are_made() {
        let seen = |rules: Vec<Rule>| Seen::of(&RelabelRules(rules.into()));
        assert_eq!(seen(vec![rule(Action::LabelMap, "", "x", "")]), Seen::All);
        let these = seen(vec![rule(Action::DropEqual, "a", "", "b"), rule(Action::Replace, "c", "", "d")]);
        assert_eq!(these, Seen::These(["b", "a", "c"].map(str::to_owned).into()));
        assert!(these.sees("c") && !these.sees("d"));
    }

    #[test]
    fn text_is_escaped_as_go_does() {
        let mut out = Vec::new();
        write_text("<a href=\"x\">&\u{2028}\t\u{1}\u{e9}".as_bytes(), &mut out);
        write_text(b"\xff\xe2\x82", &mut out);
        let expected = "\"\\u003ca href=\\\"x\\\"\\u003e\\u0026\\u2028\\t\\u0001\u{e9}\"\"\\ufffd\\ufffd\\ufffd\"";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_field_is_read_back_by_a_parser_of_json(text in "(?s).{0,40}") {
            let mut out = Vec::new();
            write_text(text.as_bytes(), &mut out);
            let read: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read, text);
        }
    }
}
