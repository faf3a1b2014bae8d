//! The peers as systems under test. `xtask` fetches them.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;

use crate::{
    error::{Context, Error, Result},
    subject::{Kind, Subject},
};

/// A peer: its name here, and what it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// What the user writes.
    pub(crate) name: &'static str,
    kind: Kind,
}

/// The longest first line of a changelog.
const LINE_BYTES_MAX: u64 = 1024;

/// All peers, by name.
pub(crate) const PEERS: &[Peer] = &[
    Peer { name: "prometheus", kind: Kind::Prometheus },
    Peer { name: "rotel", kind: Kind::Rotel },
    Peer { name: "rsyslog", kind: Kind::Rsyslog },
    Peer { name: "vmagent", kind: Kind::Vmagent },
];

/// The build directory: the one that this program stands in, else `target` where it was started.
pub(crate) fn build_dir() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot find this program")?;
    let around = program.ancestors().find(|path| path.file_name().is_some_and(|name| name == "target"));
    match around {
        Some(path) => Ok(path.to_owned()),
        None => Ok(env::current_dir().context("cannot find the current directory")?.join("target")),
    }
}

impl Peer {
    /// The peer as a system under test, if it was fetched.
    pub(crate) fn subject(&self, dir: &Path) -> Result<Subject> {
        let peer = xtask::peers::named(self.name).ok_or_else(|| Error::new(format!("no package has {}", self.name)))?;
        let binary = peer.find(dir).map_err(Error::new)?;
        Ok(Subject {
            name: self.name.to_owned(),
            kind: self.kind,
            binary,
            extra: Vec::new(),
            version: peer.packages().last().and_then(|package| version(package, dir)),
            libraries: peer.libraries(dir),
        })
    }
}

/// The version in the first line of the changelog of Debian's package: vmagent as packaged does not know its own.
fn version(package: &str, dir: &Path) -> Option<String> {
    let file = fs::File::open(dir.join("usr/share/doc").join(package).join("changelog.Debian.gz")).ok()?;
    let mut line = String::new();
    BufReader::new(GzDecoder::new(file)).take(LINE_BYTES_MAX).read_line(&mut line).ok()?;
    changelog_version(&line)
}

/// Reads `package (version) suite; urgency=low`.
fn changelog_version(line: &str) -> Option<String> {
    let (package, rest) = line.split_once(" (")?;
    Some(format!("{package} {}", rest.split_once(')')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_was_not_fetched_is_not_run() {
        let error = PEERS[3].subject(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.starts_with("not run: vmagent is not at /nonexistent/usr/bin/vmagent"), "{error}");
    }

    #[test]
    fn the_version_is_the_first_of_the_changelog() {
        let line = "victoria-metrics (1.79.5+ds1-2+b9) unstable; urgency=medium\n";
        assert_eq!(changelog_version(line).as_deref(), Some("victoria-metrics 1.79.5+ds1-2+b9"));
        assert_eq!(changelog_version("garbage ("), None);
    }
}
