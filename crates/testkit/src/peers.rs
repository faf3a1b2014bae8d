//! Programs that are not ours, as `cargo xtask peers` fetches them.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A program that was fetched.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it is.
    pub path: PathBuf,
    libraries: Vec<PathBuf>,
}

/// A peer by its name; none, which is said, where it was not fetched. `build` is a folder of the build directory:
/// `env!("CARGO_TARGET_TMPDIR")`, which cargo has for tests only.
///
/// # Panics
///
/// If there is no peer of this name, or if it was not fetched although this is continuous integration.
pub fn peer(build: &str, name: &str) -> Option<Peer> {
    let peer = xtask::peers::named(name).unwrap_or_else(|| panic!("there is no peer {name}"));
    let dir = Path::new(build).parent().expect("the build directory").join("peers");
    match peer.find(&dir) {
        Ok(path) => Some(Peer { path, libraries: peer.libraries(&dir) }),
        Err(error) => {
            assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{error}");
            say(&error);
            None
        }
    }
}

/// Says something past the test runner, which keeps what tests print that pass: why one is not run.
pub fn say(text: &str) {
    // Whoever does not listen misses it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl Peer {
    /// The program, with nothing to read, in a time zone that is the same everywhere.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.env("LD_LIBRARY_PATH", self.library_path()).env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null());
        command
    }

    /// The folders of its libraries, with colons between.
    ///
    /// # Panics
    ///
    /// If the name of a folder has a colon.
    pub fn library_path(&self) -> String {
        let joined = env::join_paths(&self.libraries).expect("folders without colons");
        joined.to_string_lossy().into_owned()
    }

    /// The folders within those of its libraries that have a name, and are there.
    pub fn library_folders(&self, name: &str) -> Vec<PathBuf> {
        self.libraries.iter().map(|folder| folder.join(name)).filter(|folder| folder.is_dir()).collect()
    }
}

/// A program that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// If it cannot be run.
    pub fn start(command: &mut Command) -> Self {
        Running(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
