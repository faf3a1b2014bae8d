//! `otelcol.receiver.filelog`.

mod entries;
mod finder;
mod manager;
mod split;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use corten_component::size::ByteSize;
use corten_component::{Component, Context, Error, Task};
use corten_config::schema::Stability;
use corten_config::value::{Data, Number, Value};
use corten_config::{Arguments, CheckErrors, Exports};
use corten_files::positions::{self, Positions};
use corten_files::tail::{Begin, Buffers, Options, Unpacking};
use corten_otlp::OtlpLogs;
use corten_signal::regex::GoRegex;
use corten_stanza::{Map, Pipeline, Template, Text, Value as StanzaValue};
use parking_lot::Mutex;

use self::entries::{Coding, Header, Include, Maker};
use self::finder::Finder;
pub use self::finder::{OrderingCriteria, SortBy};
use self::manager::{Compression, Metrics, Retry, Settings, Shared, ToldFiles};
pub use self::split::Multiline;
use self::split::Splitter;
use crate::auth::Handler;
use crate::flow::{DebugMetrics, Output};
use crate::metrics::{RECEIVER, ScopedMetrics};
use crate::shown::show;

/// An operator, as configurations write it.
type Operator = BTreeMap<String, Value>;

/// The fewest first bytes that a file is known by.
const FINGERPRINT_BYTES_MIN: u64 = 16;
/// How many bytes are read at once.
const TURN_BYTES: usize = 256 << 10;
/// The shortest time between two looks at files.
const POLL_MIN: Duration = Duration::from_millis(10);

/// Reads the lines of files as they are written, and sends them as log records.
///
/// A file is known by its number and its content, not by its name: one that is rotated by renaming is read to its end, and
/// of one that is rotated by copying the rest is read in the copy. How far a file was read is remembered over reloads, and
/// with `storage` over restarts; it moves on when the records are safe with the components behind.
///
/// What a line says can be made attributes, a time and a severity with `operators`, which are those of the collector's
/// stanza, with the same names and settings. Records that are not taken are sent again until they are, while nothing
/// further is read.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct FilelogArguments {
    /// Patterns of the paths of files to read: `*`, `?`, `[classes]`, `{a,b}`, and `**` for any number of folders.
    include: Vec<String>,
    /// Patterns of the paths of files not to read.
    #[arg(optional)]
    exclude: Vec<String>,
    /// Does not read files that were last changed longer ago than this; `0s` reads all.
    #[arg(default = "0s")]
    exclude_older_than: Duration,
    /// How often to look for files, and for what is new in them.
    #[arg(default = "200ms")]
    poll_interval: Duration,
    /// How many files are read at the same time. Half of them are read at once, and then the next.
    #[arg(default = 1024)]
    max_concurrent_files: i64,
    /// How many times in each `poll_interval` files are read, half of `max_concurrent_files` each time. What is left is not
    /// read. 0 sets no limit.
    #[arg(default = 0)]
    max_batches: i64,
    /// Where to begin with files that are there at the start and of which nothing is known: `beginning` or `end`. Files that
    /// come later are read from their beginning.
    #[arg(default = "end")]
    start_at: String,
    /// How many first bytes tell a file from others, at least 16. Files are told apart by more than that: a larger number
    /// changes nothing.
    #[arg(default = "1KiB")]
    fingerprint_size: ByteSize,
    /// The largest record, in bytes. A longer line becomes several.
    #[arg(default = "1MiB")]
    max_log_size: ByteSize,
    /// The encoding of the files: `utf-8`, `utf-8-raw` to leave alone what is none, `nop` for bytes that are no text, or a
    /// name of the IANA registry, such as `utf-16le` and `big5`.
    #[arg(default = "utf-8")]
    encoding: String,
    /// How long the last line of a file waits for its end before it is sent as it is. With `0s` it waits until it has one.
    #[arg(default = "500ms")]
    force_flush_period: Duration,
    /// Deletes a file when all of it was read and is safe. Needs `start_at = "beginning"`.
    #[arg(default = false)]
    delete_after_read: bool,
    /// Adds the attribute `log.file.record_number`, the number of the record in its file, counted since the file was begun
    /// with.
    #[arg(default = false)]
    include_file_record_number: bool,
    /// How files are compressed: not at all, `gzip`, or `auto` to look at each.
    #[arg(default = "")]
    compression: String,
    /// Reads a file only while no other process has a lock on it for itself.
    #[arg(default = false)]
    acquire_fs_lock: bool,
    /// Tells the system that it need not keep in memory what was read.
    #[arg(default = false)]
    file_cache_advise: bool,
    /// Keeps white space at the beginning of records.
    #[arg(default = false)]
    preserve_leading_whitespaces: bool,
    /// Keeps white space at the end of records.
    #[arg(default = false)]
    preserve_trailing_whitespaces: bool,
    /// Adds the attribute `log.file.name`.
    #[arg(default = true)]
    include_file_name: bool,
    /// Adds the attribute `log.file.path`.
    #[arg(default = false)]
    include_file_path: bool,
    /// Adds the attribute `log.file.name_resolved`, the name after following links.
    #[arg(default = false)]
    include_file_name_resolved: bool,
    /// Adds the attribute `log.file.path_resolved`, the path after following links.
    #[arg(default = false)]
    include_file_path_resolved: bool,
    /// Adds the attribute `log.file.owner.name`.
    #[arg(default = false)]
    include_file_owner_name: bool,
    /// Adds the attribute `log.file.owner.group.name`.
    #[arg(default = false)]
    include_file_owner_group_name: bool,
    /// Adds the attribute `log.file.permissions`, in octal digits.
    #[arg(default = false)]
    include_file_permissions: bool,
    /// Attributes to add to each record. `EXPR(...)` in a value stands for the value of an expression over the record.
    #[arg(optional)]
    attributes: BTreeMap<String, String>,
    /// Resource attributes to add to each record, as `attributes`.
    #[arg(optional)]
    resource: BTreeMap<String, String>,
    /// What to make of records, in order: objects with the `type` of an operator of stanza and its settings.
    #[arg(optional)]
    operators: Vec<Operator>,
    /// Where to keep how far files were read over restarts: the `handler` of an `otelcol.storage` component.
    storage: Option<Handler>,
    /// Joins lines to one record.
    #[block]
    multiline: Option<Multiline>,
    /// Reads attributes from the first lines of files.
    #[block]
    header: Option<HeaderBlock>,
    /// Which of the files to read, and in which order.
    #[block]
    ordering_criteria: Option<OrderingCriteria>,
    /// How often and how long to send again what is not taken.
    #[block(default)]
    retry_on_failure: RetryOnFailure,
    /// Where to send the records.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// Reads attributes from the first lines of files. Those lines are no records.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct HeaderBlock {
    /// A regular expression. The first lines that it matches are the header.
    pattern: String,
    /// What to make of each line of the header: operators whose attributes are added to all records of the file.
    metadata_operators: Vec<Operator>,
}

/// How often and how long to send again what is not taken.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct RetryOnFailure {
    /// Uses what this block says. Otherwise records are sent again after waits between 1 s and 30 s, until they are taken.
    #[arg(default = false)]
    enabled: bool,
    /// How long to wait before the first further attempt.
    #[arg(default = "1s")]
    initial_interval: Duration,
    /// How long to wait between attempts, at most.
    #[arg(default = "30s")]
    max_interval: Duration,
    /// How long records are sent again before they are dropped; `0s` never drops them.
    #[arg(default = "5m")]
    max_elapsed_time: Duration,
}

impl RetryOnFailure {
    fn retry(&self) -> Retry {
        if !self.enabled {
            return Retry { initial: Duration::from_secs(1), max: Duration::from_secs(30), elapsed_max: None };
        }
        let least = Duration::from_millis(1);
        let initial = self.initial_interval.max(least);
        let elapsed_max = (!self.max_elapsed_time.is_zero()).then_some(self.max_elapsed_time);
        Retry { initial, max: self.max_interval.max(initial), elapsed_max }
    }
}

/// A value of the configuration as operators take it.
fn plain(value: &Value) -> StanzaValue {
    match &value.data {
        Data::Null | Data::Function(_) | Data::Capsule(_) => StanzaValue::Null,
        Data::Bool(value) => StanzaValue::Bool(*value),
        Data::Number(Number::Int(number)) => StanzaValue::Int(*number),
        Data::Number(Number::Uint(number)) => {
            i64::try_from(*number).map_or(StanzaValue::Float(*number as f64), StanzaValue::Int)
        }
        Data::Number(Number::Float(number)) => StanzaValue::Float(*number),
        Data::String(text) | Data::Secret(text) => StanzaValue::str(&**text),
        Data::OptionalSecret(secret) => StanzaValue::str(&*secret.text),
        Data::Bytes(bytes) => StanzaValue::str(&**bytes),
        Data::Array(_) => StanzaValue::List(value.items().map(|item| plain(&item)).collect()),
        Data::Object(_) => StanzaValue::Map(
            value.entries().into_iter().map(|(name, value)| (Text::from(&*name), plain(&value))).collect(),
        ),
    }
}

fn plain_operators(operators: &[Operator]) -> Vec<StanzaValue> {
    let of_one = |operator: &Operator| {
        let pairs = operator.iter().map(|(name, value)| (Text::from(&**name), plain(value)));
        StanzaValue::Map(pairs.collect::<Map>())
    };
    operators.iter().map(of_one).collect()
}

fn templates(texts: &BTreeMap<String, String>, name: &str) -> Result<Vec<(Text, Template)>, String> {
    texts
        .iter()
        .map(|(key, text)| match Template::new(text) {
            Ok(template) => Ok((Text::from(&**key), template)),
            Err(error) => Err(format!("'{name}' {key}: compile embedded expression: {error}")),
        })
        .collect()
}

impl FilelogArguments {
    /// What the reference refuses when it reads the arguments, and operators, whatever is wrong with them.
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if let Err(error) = Pipeline::new(&plain_operators(&self.operators)) {
            errors.push(&["operators"], format!("failed to parse 'operator': {error}"));
        }
        errors.require(
            self.max_concurrent_files >= 1,
            &["max_concurrent_files"],
            "'max_concurrent_files' must be positive",
        );
        errors.require(self.max_batches >= 0, &["max_batches"], "'max_batches' must not be negative");
        errors.require(
            !(self.start_at == "end" && self.delete_after_read),
            &["start_at", "delete_after_read"],
            "'delete_after_read' cannot be used with 'start_at = end'",
        );
        if let Err(error) = Coding::named(&self.encoding) {
            errors.push(&["encoding"], format!("invalid 'encoding': {error}"));
        }
        if self.compression().is_none() {
            errors.push(&["compression"], format!("invalid 'compression' type: {}", self.compression));
        }
        if let Some(header) = &self.header {
            if header.metadata_operators.is_empty() {
                errors.push(&["header"], "'header' requires at least one 'metadata_operator'".to_owned());
            } else if let Err(error) = Pipeline::for_headers(&plain_operators(&header.metadata_operators)) {
                errors.push(&["header"], format!("failed to parse 'metadata_operator': {error}"));
            }
        }
        errors.into_result()
    }

    /// What the reference refuses when it builds the component.
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let mut refuse = |fields: &[&'static str], outcome: Result<(), String>| {
            if let Err(error) = outcome {
                errors.push(fields, error);
            }
        };
        let finds = |include: &[String], exclude: &[String], ordering| {
            Finder::new(include, exclude, Duration::ZERO, ordering).map(drop)
        };
        // One after the other, so that each names what is wrong.
        let any = ["*".to_owned()];
        refuse(&["include"], finds(&self.include, &[], None));
        refuse(&["exclude"], finds(&any, &self.exclude, None));
        refuse(&["ordering_criteria"], finds(&any, &[], self.ordering_criteria.as_ref()));
        if self.fingerprint_size.bytes() < FINGERPRINT_BYTES_MIN {
            refuse(
                &["fingerprint_size"],
                Err(format!("'fingerprint_size' must be at least {FINGERPRINT_BYTES_MIN} bytes")),
            );
        }
        if self.max_log_size.bytes() == 0 {
            refuse(&["max_log_size"], Err("'max_log_size' must be positive".to_owned()));
        }
        if !matches!(&*self.start_at, "beginning" | "end") {
            refuse(&["start_at"], Err(format!("invalid start_at location '{}'", self.start_at)));
        }
        if self.header.is_some() && self.start_at == "end" {
            refuse(&["header"], Err("'header' cannot be specified with 'start_at: end'".to_owned()));
        }
        if let Some(header) = &self.header
            && let Err(error) = GoRegex::new(&header.pattern)
        {
            refuse(&["header"], Err(format!("invalid config for 'header': failed to compile `pattern`: {error}")));
        }
        if let Ok(coding) = Coding::named(&self.encoding) {
            refuse(&["multiline"], self.splitter(coding).map(drop));
        }
        refuse(&["attributes"], templates(&self.attributes, "attributes").map(drop));
        refuse(&["resource"], templates(&self.resource, "resource").map(drop));
        if let Some(storage) = &self.storage {
            refuse(&["storage"], storage.storage().map(drop));
        }
        errors.into_result()
    }

    fn compression(&self) -> Option<Compression> {
        match &*self.compression {
            "" => Some(Compression::None),
            "gzip" => Some(Compression::Gzip),
            "auto" => Some(Compression::Auto),
            _ => None,
        }
    }

    fn splitter(&self, coding: Coding) -> Result<Splitter, String> {
        let bytes_max = usize::try_from(self.max_log_size.bytes()).unwrap_or(usize::MAX).clamp(4, 1 << 30);
        Splitter::new(self.multiline.as_ref(), bytes_max, coding == Coding::Bytes)
    }

    fn settings(&self, cx: &Context<Filelog>) -> Result<Settings, String> {
        let coding = Coding::named(&self.encoding)?;
        let header = match &self.header {
            None => None,
            Some(header) => {
                let pipeline = Pipeline::for_headers(&plain_operators(&header.metadata_operators));
                Some(Header {
                    pattern: GoRegex::new(&header.pattern).map_err(|error| error.to_string())?,
                    pipeline: Mutex::new(pipeline.map_err(|error| error.to_string())?),
                })
            }
        };
        let flush_ms = u64::try_from(self.force_flush_period.as_millis()).unwrap_or(u64::MAX);
        let options = Options {
            encoding: coding.encoding(),
            turn_bytes: TURN_BYTES,
            // What is longer is cut when it is split.
            line_bytes_max: usize::MAX,
            split: Some(Arc::new(self.splitter(coding)?)),
            // A file that is deleted has no more to come.
            unended_ms: Some(flush_ms).filter(|flush_ms| *flush_ms > 0 || self.delete_after_read),
            locks: self.acquire_fs_lock,
            forgets: self.file_cache_advise,
            unknown: if self.start_at == "end" { Begin::End } else { Begin::Beginning },
            damaged: Begin::Beginning,
        };
        let include = Include {
            name: self.include_file_name,
            path: self.include_file_path,
            name_resolved: self.include_file_name_resolved,
            path_resolved: self.include_file_path_resolved,
            owner: self.include_file_owner_name,
            group: self.include_file_owner_group_name,
            permissions: self.include_file_permissions,
            record_number: self.include_file_record_number,
        };
        Ok(Settings {
            finder: Finder::new(
                &self.include,
                &self.exclude,
                self.exclude_older_than,
                self.ordering_criteria.as_ref(),
            )?,
            maker: Maker {
                coding,
                keeps_leading: self.preserve_leading_whitespaces,
                keeps_trailing: self.preserve_trailing_whitespaces,
                include,
                attributes: templates(&self.attributes, "attributes")?,
                resource: templates(&self.resource, "resource")?,
                header,
            },
            options,
            compression: self.compression().unwrap_or(Compression::None),
            poll: self.poll_interval.max(POLL_MIN),
            files_at_once: usize::try_from(self.max_concurrent_files / 2).unwrap_or(1),
            groups_max: usize::try_from(self.max_batches).unwrap_or(0),
            deletes: self.delete_after_read,
            retry: self.retry_on_failure.retry(),
            forward: self.output.logs(cx),
        })
    }
}

/// Nothing.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Offer {}

/// The component.
pub struct Filelog {
    finds: Finds,
    storage: Option<Handler>,
    positions: Arc<Mutex<Positions>>,
    task: Task,
}

/// Which files are read.
type Finds = (Vec<String>, Vec<String>, Duration, Option<OrderingCriteria>);

/// What is to be put in place.
pub struct Prepared {
    finds: Finds,
    settings: Settings,
    pipeline: Pipeline,
    storage: Option<Handler>,
    /// Where there are others than those that are in use.
    positions: Option<Positions>,
    /// Files were read before, so that what is not known of is new.
    resumes: bool,
}

impl Component for Filelog {
    const NAME: &'static str = "otelcol.receiver.filelog";
    const STABILITY: Stability = Stability::PublicPreview;
    type Arguments = FilelogArguments;
    type Exports = Offer;
    type Prepared = Prepared;

    async fn prepare(
        arguments: FilelogArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Offer), Error> {
        let settings = arguments.settings(cx).map_err(Error::new)?;
        let pipeline =
            Pipeline::new(&plain_operators(&arguments.operators)).map_err(|error| Error::new(error.to_string()))?;
        for unknown in pipeline.unknown() {
            cx.logger().warn("an operator has a setting that it does not know", &[("setting", unknown.into())]);
        }
        let FilelogArguments { storage, include, exclude, exclude_older_than, ordering_criteria, .. } = arguments;
        let finds = (include, exclude, exclude_older_than, ordering_criteria);
        // Where the same files are looked for as before, what is not known of is new.
        let (mut positions, mut resumes) = (None, current.is_some_and(|current| current.finds == finds));
        if current.is_none_or(|current| current.storage != storage) {
            let (loaded, had_some) = load(storage.as_ref(), cx).await?;
            positions = Some(loaded);
            resumes |= had_some;
        }
        Ok((Prepared { finds, settings, pipeline, storage, positions, resumes }, Offer {}))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { finds, settings, pipeline, storage, positions, resumes } = prepared;
        let positions = match (positions, &current) {
            (Some(positions), _) => Arc::new(Mutex::new(positions)),
            (None, Some(current)) => Arc::clone(&current.positions),
            (None, None) => Arc::default(),
        };
        let receiver = "go.opentelemetry.io/collector/receiver/receiverhelper";
        let scoped = ScopedMetrics::new(cx, receiver, "filelog");
        let files = "github.com/open-telemetry/opentelemetry-collector-contrib/pkg/stanza/fileconsumer";
        let of_files = ScopedMetrics::new(cx, files, "filelog");
        let transport: &[(&'static str, &str)] = &[("transport", "")];
        let metrics = Metrics {
            accepted: scoped.counter_of(
                "otelcol_receiver_accepted_log_records_total",
                "Number of log records successfully pushed into the pipeline.",
                RECEIVER,
                transport,
            ),
            refused: scoped.counter_of(
                "otelcol_receiver_refused_log_records_total",
                "Number of log records that could not be pushed into the pipeline.",
                RECEIVER,
                transport,
            ),
            open: of_files.gauge("otelcol_fileconsumer_open_files", "Number of open files", RECEIVER),
            reading: of_files.gauge(
                "otelcol_fileconsumer_reading_files",
                "Number of open files that are being read",
                RECEIVER,
            ),
        };
        let told = Arc::new(Mutex::new(ToldFiles::default()));
        let (shown, row) = (Arc::clone(&told), Arc::clone(cx.ledger().row_of::<OtlpLogs>()));
        show(cx, move || shown.lock().tell(&row));
        let shared = Arc::new(Shared {
            settings,
            positions: Arc::clone(&positions),
            saves: storage.is_some(),
            buffers: Buffers::new(TURN_BYTES),
            unpacking: Unpacking::default(),
            pipeline: Mutex::new(pipeline),
            metrics,
            row: Arc::clone(cx.ledger().row_of::<OtlpLogs>()),
            told,
            health: Arc::clone(cx.health()),
            logger: cx.logger().clone(),
            has_polled: AtomicBool::new(resumes),
        });
        // What runs ends before anything is read anew.
        let before = Arc::new(tokio::sync::Mutex::new(current.map(|current| current.task)));
        let task = cx.spawn("files", {
            let shared = Arc::clone(&shared);
            move |stop| {
                let (shared, before) = (Arc::clone(&shared), Arc::clone(&before));
                async move {
                    if let Some(task) = before.lock().await.take() {
                        task.stop().await;
                    }
                    manager::run(shared, stop).await
                }
            }
        });
        Filelog { finds, storage, positions, task }
    }

    async fn drain(self, _: &Context<Self>) {
        self.task.stop().await;
    }
}

/// The positions that a storage keeps, and whether there were any.
async fn load(storage: Option<&Handler>, cx: &Context<Filelog>) -> Result<(Positions, bool), Error> {
    let Some(storage) = storage else { return Ok((Positions::in_memory(), false)) };
    let keeper = Arc::clone(storage.storage().map_err(Error::new)?);
    let client = format!("receiver_filelog_{}_", cx.id());
    let loading = tokio::task::spawn_blocking(move || {
        let folder = keeper.folder(&client)?;
        let had_some = folder.join(positions::FILE_NAME).exists();
        Positions::load(&folder, None).map(|(positions, loaded)| (positions, loaded, had_some))
    });
    let (positions, loaded, had_some) = loading.await.map_err(|error| Error::new(error.to_string()))??;
    if loaded.damaged > 0 {
        cx.logger().error("positions are damaged", &[("lines", (loaded.damaged as i64).into())]);
    }
    if had_some {
        cx.logger().info("Resuming from previously known offset(s). 'start_at' setting is not applicable.", &[]);
    }
    Ok((positions, had_some))
}
