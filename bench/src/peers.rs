//! The peers: Debian's packages, unpacked below the build directory, never installed.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::Command,
};

use flate2::read::GzDecoder;

use crate::{
    error::{Context, Error, Result},
    subject::{Kind, Subject},
};

/// A peer: its name here, what it is, the package and the program in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// What the user writes.
    pub(crate) name: &'static str,
    kind: Kind,
    package: &'static str,
    program: &'static str,
}

/// The longest first line of a changelog.
const LINE_BYTES_MAX: u64 = 1024;

/// All peers, by name.
pub(crate) const PEERS: &[Peer] = &[
    Peer { name: "prometheus", kind: Kind::Prometheus, package: "prometheus", program: "usr/bin/prometheus" },
    Peer { name: "vmagent", kind: Kind::Vmagent, package: "victoria-metrics", program: "usr/bin/vmagent" },
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
    fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.program)
    }

    /// The peer as a system under test, if it was fetched.
    pub(crate) fn subject(&self, dir: &Path) -> Result<Subject> {
        let binary = self.path(dir);
        if !binary.is_file() {
            return Err(Error::new(format!(
                "not run: {} is not at {}; fetch it with `peers`",
                self.name,
                binary.display()
            )));
        }
        Ok(Subject {
            name: self.name.to_owned(),
            kind: self.kind,
            binary,
            extra: Vec::new(),
            version: self.version(dir),
        })
    }

    /// The version in the first line of the package's changelog: vmagent as packaged does not know its own.
    fn version(&self, dir: &Path) -> Option<String> {
        let file = fs::File::open(dir.join("usr/share/doc").join(self.package).join("changelog.Debian.gz")).ok()?;
        let mut line = String::new();
        BufReader::new(GzDecoder::new(file)).take(LINE_BYTES_MAX).read_line(&mut line).ok()?;
        changelog_version(&line)
    }
}

/// Reads `package (version) suite; urgency=low`.
fn changelog_version(line: &str) -> Option<String> {
    let (package, rest) = line.split_once(" (")?;
    Some(format!("{package} {}", rest.split_once(')')?.0))
}

/// Fetches and unpacks the peers that are not there yet.
pub(crate) fn fetch(dir: &Path, mut say: impl FnMut(String)) -> Result<()> {
    fs::create_dir_all(dir).context(format!("cannot make {}", dir.display()))?;
    for peer in PEERS {
        if !peer.path(dir).is_file() {
            say(format!("fetching {} for {}", peer.package, peer.name));
            fetch_one(peer, dir)
                .map_err(|error| Error::new(format!("not run: {} cannot be had: {error}", peer.name)))?;
        }
        say(format!("{}: {}", peer.name, peer.path(dir).display()));
    }
    Ok(())
}

fn fetch_one(peer: &Peer, dir: &Path) -> Result<()> {
    // Each package has a folder of its own, so that no other version is unpacked by accident.
    let downloads = dir.join("deb").join(peer.package);
    fs::create_dir_all(&downloads).context(format!("cannot make {}", downloads.display()))?;
    run(Command::new("apt-get").args(["download", peer.package]).current_dir(&downloads))?;
    let mut packages: Vec<PathBuf> = fs::read_dir(&downloads)
        .context(downloads.display())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    packages.sort();
    let package = packages.pop().ok_or_else(|| Error::new("apt-get brought no package"))?;
    run(Command::new("dpkg").arg("-x").arg(package).arg(dir))?;
    if peer.path(dir).is_file() { Ok(()) } else { Err(Error::new(format!("the package has no {}", peer.program))) }
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().context(format!("cannot run {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("{name} failed: {}", errors.lines().last().unwrap_or("no reason given").trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_was_not_fetched_is_not_run() {
        let error = PEERS[1].subject(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.starts_with("not run: vmagent is not at /nonexistent/usr/bin/vmagent"), "{error}");
    }

    #[test]
    fn the_version_is_the_first_of_the_changelog() {
        let line = "victoria-metrics (1.79.5+ds1-2+b9) unstable; urgency=medium\n";
        assert_eq!(changelog_version(line).as_deref(), Some("victoria-metrics 1.79.5+ds1-2+b9"));
        assert_eq!(changelog_version("garbage ("), None);
    }

    #[test]
    fn a_failing_command_gives_its_last_words() {
        let error = run(Command::new("sh").args(["-c", "echo first >&2; echo last >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "sh failed: last");
        assert!(run(&mut Command::new("/nonexistent")).is_err());
    }
}
