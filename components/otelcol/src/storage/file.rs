//! `otelcol.storage.file`.

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use corten_component::{Component, Context, Error, Logger};
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_config::{Arguments, Exports};

use crate::auth::{Handler, Storage};
use crate::flow::DebugMetrics;

/// Keeps what other components must not lose in a folder: the queues of exporters, for one.
///
/// Each component that keeps something has a folder of its own within it. What is not needed any more is removed as it goes,
/// so that nothing has to be compacted. A folder that is used already, by this process or another, is an error.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct FileStorageArguments {
    /// The folder. Without it, it is the component's own below the storage path of the program.
    #[arg(optional)]
    directory: String,
    /// How long to wait for a folder that is used by somebody else.
    #[arg(default = "1s")]
    timeout: Duration,
    /// Whether what is written is forced to the medium before it counts as kept, so that it survives the end of the machine,
    /// too. Otherwise that is done within a second.
    #[arg(default = false)]
    fsync: bool,
    /// Whether the folder is made if there is none.
    #[arg(default = true)]
    create_directory: bool,
    /// Who may use a folder that is made, as an octal number.
    #[arg(default = "0750")]
    directory_permissions: String,
    /// When space is given back.
    #[block(default)]
    compaction: CompactionArguments,
    /// Which metrics of its own the component has.
    #[block(default)]
    debug_metrics: DebugMetrics,
}

/// When space is given back. What is kept here gives it back whenever a part of it is not needed any more, at the start as
/// well as later, without temporary files; the block says how soon.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct CompactionArguments {
    /// Whether space is given back at the start. It always is.
    #[arg(default = false)]
    on_start: bool,
    /// Whether space is given back each `check_interval`, and not each minute.
    #[arg(default = false)]
    on_rebound: bool,
    /// The folder for temporary files, of which there are none.
    #[arg(optional)]
    directory: String,
    /// From how many MiB on space is to be given back. It always is.
    #[arg(default = 100)]
    rebound_needed_threshold_mib: i64,
    /// Below how many MiB in use space is to be given back. It always is.
    #[arg(default = 10)]
    rebound_trigger_threshold_mib: i64,
    /// How much is moved at once; nothing ever is.
    #[arg(default = 65536)]
    max_transaction_size: i64,
    /// How often space is given back with `on_rebound`.
    #[arg(default = "5s")]
    check_interval: Duration,
    /// Whether temporary files are removed at the start; there are none.
    #[arg(default = false)]
    cleanup_on_start: bool,
}

impl FileStorageArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if let Err(text) = self.mode() {
            errors.push(&["directory_permissions", "create_directory"], text);
        }
        errors.into_result()
    }

    /// The permissions of a folder that is made.
    fn mode(&self) -> Result<u32, &'static str> {
        if !self.create_directory {
            return Ok(0);
        }
        match u32::from_str_radix(&self.directory_permissions, 8) {
            Err(_) => Err("directory_permissions value must be a valid octal representation"),
            Ok(mode) if mode & 0o777 != mode => Err("directory_permissions contain invalid bits for file access"),
            Ok(mode) => Ok(mode),
        }
    }
}

impl CompactionArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            self.max_transaction_size >= 0,
            &["max_transaction_size"],
            "max transaction size for compaction cannot be less than 0",
        );
        errors.require(
            !self.on_rebound || !self.check_interval.is_zero(),
            &["check_interval", "on_rebound"],
            "compaction check interval must be positive when rebound compaction is set",
        );
        errors.into_result()
    }
}

/// What the component exports.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct Exported {
    /// For the `storage` arguments of other components.
    pub handler: Handler,
}

/// The component.
pub struct FileStorage;

impl Component for FileStorage {
    const NAME: &'static str = "otelcol.storage.file";
    const STABILITY: Stability = Stability::PublicPreview;
    type Arguments = FileStorageArguments;
    type Exports = Exported;
    type Prepared = ();

    async fn prepare(
        arguments: FileStorageArguments,
        cx: &Context<Self>,
        _: Option<&Self>,
    ) -> Result<((), Exported), Error> {
        let directory = match arguments.directory.as_str() {
            "" => cx.data_dir(),
            directory => PathBuf::from(directory),
        };
        let folder = Folder {
            mode: arguments.mode()?,
            directory,
            creates: arguments.create_directory,
            wait_max: arguments.timeout,
            syncs: arguments.fsync,
            frees_every: arguments.compaction.on_rebound.then_some(arguments.compaction.check_interval),
            logger: cx.logger().clone(),
        };
        let folder = tokio::task::spawn_blocking(move || folder.make().map(|()| folder)).await;
        let folder = folder.map_err(|error| Error::new(error.to_string()))?;
        let folder = folder.map_err(|text| Error::new(format!("directory: {text}")))?;
        Ok(((), Exported { handler: Handler::of_storage(cx.id(), Arc::new(folder)) }))
    }

    fn commit(_: Option<Self>, (): (), _: &Context<Self>) -> Self {
        FileStorage
    }
}

/// A folder that others keep something in.
#[derive(Debug)]
struct Folder {
    directory: PathBuf,
    creates: bool,
    mode: u32,
    wait_max: Duration,
    syncs: bool,
    frees_every: Option<Duration>,
    logger: Logger,
}

impl Folder {
    /// Makes the folder where it is to be made, and looks whether it is one.
    fn make(&self) -> Result<(), String> {
        let shown = self.directory.display();
        match std::fs::metadata(&self.directory) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(format!("{shown} is not a directory")),
            Err(error) if error.kind() == ErrorKind::NotFound && self.creates => {
                make_folder(&self.directory, self.mode).map_err(|error| format!("making {shown}: {error}"))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(format!(
                "directory must exist: stat {shown}: no such file or directory. \
                 You can enable the create_directory option to automatically create it"
            )),
            Err(error) => Err(format!("problem accessing configured directory: {shown}, err: {error}")),
        }
    }
}

impl Storage for Folder {
    fn folder(&self, client: &str) -> Result<PathBuf, String> {
        self.make()?;
        let name = safe_name(client);
        // What another program kept under this name is a file.
        let other = self.directory.join(&name);
        if other.is_file() {
            let fields = [("file", other.display().to_string().into())];
            self.logger.warn("what another program kept here is not read", &fields);
        }
        let folder = self.directory.join(format!("{name}.queue"));
        match make_folder(&folder, if self.creates { self.mode } else { 0o750 }) {
            Err(error) if !folder.is_dir() => Err(format!("making {}: {error}", folder.display())),
            _ => Ok(folder),
        }
    }

    fn wait_max(&self) -> Duration {
        self.wait_max
    }

    fn syncs(&self) -> bool {
        self.syncs
    }

    fn frees_every(&self) -> Option<Duration> {
        self.frees_every
    }
}

/// A name that can be a file's: what else there is becomes its number, `~002F`.
fn safe_name(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
            safe.push(c);
        } else {
            // Writing to a string does not fail.
            let _ = write!(safe, "~{:04X}", u32::from(c));
        }
    }
    safe
}

/// Makes a folder with those above it.
fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, mode);
    #[cfg(not(unix))]
    let _ = mode;
    builder.recursive(true).create(path)
}

#[cfg(test)]
mod tests {
    use corten_component::Definition;
    use corten_testkit::{Unit, host};

    use super::*;

    async fn start(body: &str) -> Result<Unit, String> {
        Unit::start(host("otelcol.storage.file.a"), &Definition::of::<FileStorage>(), body).await
    }

    fn handler(unit: &Unit) -> Handler {
        let exports = unit.world.exports();
        let value = exports.last().and_then(|exports| exports.field("handler")).unwrap();
        value.as_capsule().unwrap().as_any().downcast_ref::<Handler>().unwrap().clone()
    }

    #[tokio::test]
    async fn each_client_has_a_folder_within_the_components() {
        let unit = start("fsync = true\ncompaction {\n on_rebound = true\n check_interval = \"7s\"\n}").await.unwrap();
        let handler = handler(&unit);
        let storage = handler.storage().unwrap();
        let folder = storage.folder("exporter_otlp_a/b_traces").unwrap();
        assert_eq!(folder, unit.world.path("otelcol.storage.file.a/exporter_otlp_a~002Fb_traces.queue"));
        assert!(folder.is_dir());
        assert_eq!((storage.syncs(), storage.wait_max()), (true, Duration::from_secs(1)));
        assert_eq!(storage.frees_every(), Some(Duration::from_secs(7)));
        assert_eq!(handler.client().unwrap_err(), "otelcol.storage.file.a does not support client authentication");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(unit.world.path("otelcol.storage.file.a")).unwrap().permissions().mode();
            // The process may allow less.
            assert_eq!(mode & 0o777 & !0o750, 0, "{mode:o}");
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_said() {
        for (body, text) in [
            ("directory_permissions = \"abc\"", "directory_permissions value must be a valid octal representation"),
            ("directory_permissions = \"1750\"", "directory_permissions contain invalid bits for file access"),
            (
                "compaction {\n max_transaction_size = -1\n}",
                "max transaction size for compaction cannot be less than 0",
            ),
            (
                "compaction {\n on_rebound = true\n check_interval = \"0s\"\n}",
                "compaction check interval must be positive when rebound compaction is set",
            ),
            (
                "directory = \"/nowhere/at/all\"\ncreate_directory = false",
                "directory: directory must exist: stat /nowhere/at/all: no such file or directory. \
                 You can enable the create_directory option to automatically create it",
            ),
            ("directory = \"/dev/null\"", "directory: /dev/null is not a directory"),
        ] {
            let error = start(body).await.unwrap_err();
            assert!(error.contains(text), "{body}: {error}");
        }
    }
}
