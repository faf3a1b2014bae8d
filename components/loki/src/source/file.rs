//! `loki.source.file`.

mod figures;
mod ledger;
mod manager;
mod targets;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corten_component::{Component, Context, DebugInfo, Error, Task};
use corten_config::{Arguments, CheckErrors, Exports, StringEnum};
use corten_files::positions::Positions;
use corten_files::tail::{Begin, Encoding, Options, Packing, Unpacked};
use corten_signal::target::Target;
use corten_signal::{Logs, Receiver};
use tokio::sync::watch;

use self::manager::{Settings, Shared};
use self::targets::Finder;
use crate::forward::fanout;

/// How often a file may be looked at.
const POLL_MIN: Duration = Duration::from_millis(10);

/// Reads the lines of files as they are written, and sends them to other components.
///
/// Each target is a file: its label `__path__` is the path, and its other labels, but those whose names begin with `__`, are
/// the labels of its lines, together with `filename`, the path. Files come from `local.file_match`, or from patterns in the
/// targets themselves with the block `file_match`.
///
/// A file is known by its number and its content, not by its name: files that are rotated by renaming are read to their
/// ends, those that are rotated by copying go on in the copy as far as it was not read yet, and neither other labels nor a
/// reload have a file read again. A position moves on when all components behind have what was read in safety. Positions
/// are kept in the component's folder, and those of the reference, which lie in the same folder, are taken over at the
/// first start.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// The files to read.
    targets: Vec<Target>,
    /// Where to send the lines.
    forward_to: Vec<Receiver<Logs>>,
    /// The encoding of the files, by its IANA name. Empty, bytes are passed on as they are. A byte order mark at the
    /// beginning of a file counts more.
    #[arg(default = "")]
    encoding: String,
    /// Begin with a file of which no position is known after its last line, rather than with its first.
    #[arg(default = false)]
    tail_from_end: bool,
    /// A positions file of Promtail to take over when there are no positions yet.
    #[arg(default = "")]
    legacy_positions_file: String,
    /// Where to begin with a file whose position is known to be damaged.
    #[arg(default = "restart_from_beginning")]
    on_positions_file_error: OnPositionsError,
    /// Reads compressed files, each once from beginning to end.
    #[block]
    decompression: Option<Decompression>,
    /// How often to look at files.
    #[block(default)]
    file_watch: FileWatch,
    /// Finds files by patterns.
    #[block(default)]
    file_match: FileMatch,
}

/// What to do with a file whose position is damaged.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPositionsError {
    /// Read it from its beginning.
    RestartFromBeginning,
    /// Read what is written to it from now on.
    RestartFromEnd,
    /// Do not read it.
    Skip,
}

/// Reads compressed files. Each is read once, from its beginning to its end, and its last line needs no end.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Decompression {
    /// Whether files are compressed.
    enabled: bool,
    /// How long to wait before a file is read that was not there before, so that whoever writes it is done.
    #[arg(default = 0)]
    initial_delay: Duration,
    /// How files are compressed.
    format: Format,
}

/// How files are compressed.
#[derive(StringEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// gzip.
    Gz,
    /// zlib.
    Z,
    /// bzip2.
    Bz2,
}

impl Decompression {
    fn unpacked(&self) -> Option<Unpacked> {
        let packing = match self.format {
            Format::Gz => Packing::Gzip,
            Format::Z => Packing::Zlib,
            Format::Bz2 => Packing::Bzip2,
        };
        let delay_ms = u64::try_from(self.initial_delay.as_millis()).unwrap_or(u64::MAX);
        self.enabled.then_some(Unpacked { packing, delay_ms })
    }
}

/// How often to look at files. A file that nothing is written to is looked at after the shorter time first, and then after
/// longer and longer ones.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct FileWatch {
    /// The shortest time between two looks at a file.
    #[arg(default = "250ms")]
    min_poll_frequency: Duration,
    /// The longest time between two looks at a file that is written to. One that was not written to for a while is only
    /// looked at from time to time where the system tells of changes.
    #[arg(default = "250ms")]
    max_poll_frequency: Duration,
}

/// Finds files by patterns.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct FileMatch {
    /// Takes the paths of targets for patterns, as `local.file_match` does, with what to leave out in `__path_exclude__`.
    #[arg(default = false)]
    enabled: bool,
    /// How often to look for files.
    #[arg(default = "10s")]
    sync_period: Duration,
    /// Does not begin with files that were last changed longer ago than this; `0s` begins with all.
    #[arg(default = "0s")]
    ignore_older_than: Duration,
}

impl Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            !self.file_match.enabled || !self.file_match.sync_period.is_zero(),
            &["file_match"],
            "sync_period must be greater than 0",
        );
        errors.into_result()
    }

    fn settings(self, cx: &Context<FileSource>) -> Settings {
        // An unknown name is no reason to refuse the rest: as with the reference, the files are not read, and health says so.
        let encoding = Encoding::named(&self.encoding);
        let unknown_encoding = encoding.is_none().then(|| format!("unsupported encoding {:?}", self.encoding));
        let options = Options {
            encoding: encoding.unwrap_or_default(),
            unknown: if self.tail_from_end { Begin::End } else { Begin::Beginning },
            damaged: match self.on_positions_file_error {
                OnPositionsError::RestartFromBeginning => Begin::Beginning,
                OnPositionsError::RestartFromEnd => Begin::End,
                OnPositionsError::Skip => Begin::Skip,
            },
            ..Options::default()
        };
        let sync_period = self.file_match.enabled.then_some(self.file_match.sync_period);
        let finder = if self.file_match.enabled {
            Finder::of_patterns(self.targets, self.file_match.ignore_older_than)
        } else {
            Finder::of_paths(self.targets)
        };
        let poll_max = self.file_watch.max_poll_frequency.max(POLL_MIN);
        Settings {
            finder: Arc::new(finder),
            sync_period,
            options: Arc::new(options),
            unpacked: self.decompression.and_then(|decompression| decompression.unpacked()),
            unknown_encoding,
            encoding: self.encoding.trim().to_owned(),
            poll_min: self.file_watch.min_poll_frequency.clamp(POLL_MIN, poll_max),
            poll_max,
            forward: fanout(cx, self.forward_to),
        }
    }
}

/// Nothing.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Offer {}

/// The component.
#[derive(Debug)]
pub struct FileSource {
    settings: watch::Sender<Arc<Settings>>,
    shared: Arc<Shared>,
    task: Task,
}

/// What is to be put in place.
#[derive(Debug)]
pub struct Prepared {
    settings: Settings,
    /// At the first time.
    positions: Option<Positions>,
}

impl Component for FileSource {
    const NAME: &'static str = "loki.source.file";
    type Arguments = Config;
    type Exports = Offer;
    type Prepared = Prepared;

    async fn prepare(config: Config, cx: &Context<Self>, current: Option<&Self>) -> Result<(Prepared, Offer), Error> {
        let mut positions = None;
        if current.is_none() {
            positions = Some(load_positions(&config, cx).await?);
        }
        Ok((Prepared { settings: config.settings(cx), positions }, Offer {}))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let settings = Arc::new(prepared.settings);
        if let Some(current) = current {
            current.settings.send_replace(settings);
            return current;
        }
        let shared = Arc::new(Shared::new(cx, prepared.positions.unwrap_or_default()));
        cx.show_debug_info(Arc::clone(&shared.figures) as Arc<dyn DebugInfo>);
        let (sender, receiver) = watch::channel(settings);
        let task = cx.spawn("files", {
            let shared = Arc::clone(&shared);
            move |stop| manager::run(Arc::clone(&shared), receiver.clone(), stop)
        });
        FileSource { settings: sender, shared, task }
    }

    async fn drain(self, _: &Context<Self>) {
        self.task.stop().await;
        drop(self.shared);
    }
}

async fn load_positions(config: &Config, cx: &Context<FileSource>) -> Result<Positions, Error> {
    let folder = cx.data_dir();
    let legacy = Some(&config.legacy_positions_file).filter(|path| !path.is_empty()).map(PathBuf::from);
    let loading = tokio::task::spawn_blocking(move || Positions::load(&folder, legacy.as_deref()));
    let (positions, loaded) = loading.await.map_err(|error| Error::new(error.to_string()))??;
    let logger = cx.logger();
    if loaded.damaged > 0 {
        logger.error("positions are damaged", &[("lines", (loaded.damaged as i64).into())]);
    }
    if let Some((count, path)) = loaded.converted {
        let path = path.display().to_string();
        logger.info("positions were taken over", &[("path", path.into()), ("count", (count as i64).into())]);
    }
    if let Some(ignored) = loaded.ignored {
        logger.error("legacy positions are ignored", &[("err", ignored.into())]);
    }
    Ok(positions)
}
