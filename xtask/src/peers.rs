//! The peers: packages of Debian, Python and Node, unpacked below the build directory, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A program that Corten is tested or measured against.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// What the user writes.
    pub name: &'static str,
    source: Source,
    program: &'static str,
}

/// Where a peer comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// Debian's packages: those with the libraries that the program loads and that not every machine has, and its own, which
    /// is the last.
    Debian(&'static [&'static str]),
    /// Packages of Python with their versions, which `pip` puts into a folder of the peer's name.
    Pip(&'static [&'static str]),
    /// Packages of Node with their versions, which `npm` puts into a folder of the peer's name.
    Npm(&'static [&'static str]),
}

/// What the programs of systemd load, beyond what the smallest Debian has.
macro_rules! with_systemd {
    ($package:literal) => {
        &["libip4tc2", "libkmod2", "libmicrohttpd12", "libseccomp2", "libssl3", "libsystemd-shared", $package]
    };
}

/// All peers, by name.
pub const PEERS: &[Peer] = &[
    Peer {
        name: "botocore",
        source: Source::Pip(&["botocore==1.44.5"]),
        // AWS's own library, which checks signatures.
        program: "botocore/botocore/auth.py",
    },
    Peer {
        name: "browser",
        // A whole Chromium within a package, for machines that have none, and what steers it.
        source: Source::Npm(&["@sparticuz/chromium@147.0.0", "playwright-core@1.65.1"]),
        program: "browser/node_modules/playwright-core/package.json",
    },
    Peer {
        name: "graypy",
        source: Source::Debian(&["python3-graypy"]),
        // A library: what uses it needs Python, which is taken from the machine.
        program: "usr/lib/python3/dist-packages/graypy/__init__.py",
    },
    Peer {
        name: "journal-remote",
        source: Source::Debian(with_systemd!("systemd-journal-remote")),
        program: "lib/systemd/systemd-journal-remote",
    },
    Peer { name: "journalctl", source: Source::Debian(with_systemd!("systemd")), program: "bin/journalctl" },
    Peer {
        name: "journald",
        source: Source::Debian(with_systemd!("systemd")),
        program: "lib/systemd/systemd-journald",
    },
    Peer {
        name: "opentelemetry-node",
        source: Source::Npm(&[
            "@opentelemetry/exporter-logs-otlp-grpc@0.223.1",
            "@opentelemetry/exporter-logs-otlp-http@0.223.1",
            "@opentelemetry/exporter-metrics-otlp-grpc@0.223.0",
            "@opentelemetry/exporter-metrics-otlp-http@0.223.0",
            "@opentelemetry/exporter-trace-otlp-grpc@0.223.1",
            "@opentelemetry/exporter-trace-otlp-http@0.223.1",
            "@opentelemetry/sdk-logs@0.223.1",
            "@opentelemetry/sdk-metrics@2.12.1",
            "@opentelemetry/sdk-trace-base@2.12.1",
        ]),
        program: "opentelemetry-node/node_modules/@opentelemetry/sdk-trace-base/package.json",
    },
    Peer {
        name: "opentelemetry-python",
        source: Source::Pip(&["opentelemetry-exporter-otlp==1.45.2", "opentelemetry-sdk==1.45.2"]),
        program: "opentelemetry-python/opentelemetry/sdk/resources/__init__.py",
    },
    Peer { name: "prometheus", source: Source::Debian(&["prometheus"]), program: "usr/bin/prometheus" },
    Peer { name: "rotel", source: Source::Pip(&["rotel==0.0.1a15"]), program: "rotel/rotel/rotel-agent" },
    Peer {
        name: "rsyslog",
        source: Source::Debian(&["libestr0", "libfastjson4", "liblognorm5", "libssl3", "rsyslog-openssl", "rsyslog"]),
        program: "usr/sbin/rsyslogd",
    },
    Peer {
        name: "victoria-metrics",
        source: Source::Debian(&["victoria-metrics"]),
        program: "usr/bin/victoria-metrics",
    },
    Peer { name: "vmagent", source: Source::Debian(&["victoria-metrics"]), program: "usr/bin/vmagent" },
];

impl Peer {
    /// The folders of libraries, when the peers are unpacked in a directory: no loader looks there by itself.
    pub fn libraries(&self, dir: &Path) -> Vec<PathBuf> {
        let places = ["lib", "usr/lib"].map(|place| dir.join(place));
        let entries = places.iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
        // One for each architecture, as `x86_64-linux-gnu`.
        let own = entries.filter(|entry| entry.file_name().to_string_lossy().contains("-linux-gnu"));
        let mut found: Vec<PathBuf> = own.flat_map(|entry| [entry.path(), entry.path().join("systemd")]).collect();
        found.retain(|path| path.is_dir());
        found.sort();
        found
    }

    /// Where the program is, when the peers are unpacked in a directory.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.program)
    }

    /// The packages that it comes in, as their source names them.
    pub fn packages(&self) -> &'static [&'static str] {
        match self.source {
            Source::Debian(packages) | Source::Pip(packages) | Source::Npm(packages) => packages,
        }
    }

    fn is_whole(&self, dir: &Path) -> bool {
        self.path(dir).is_file()
            && match self.source {
                Source::Debian(packages) => packages.iter().all(|package| is_unpacked(package, dir)),
                // Other versions are other packages.
                Source::Pip(packages) | Source::Npm(packages) => {
                    fs::read_to_string(dir.join(self.name).join(UNPACKED)).is_ok_and(|had| had == packages.join("\n"))
                }
            }
    }

    fn fetch(&self, dir: &Path, updated: &mut bool) -> Result<(), String> {
        let folder = dir.join(self.name);
        match self.source {
            Source::Debian(packages) => {
                for package in packages.iter().filter(|package| !is_unpacked(package, dir)) {
                    fetch_one(package, dir, updated)?;
                }
            }
            Source::Pip(packages) => {
                let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"];
                fetch_into(&folder, Command::new("python3").args(pip).arg(&folder).args(packages), packages)?;
            }
            Source::Npm(packages) => {
                let npm = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
                fetch_into(&folder, Command::new("npm").args(npm).arg(&folder).args(packages), packages)?;
            }
        }
        let path = self.path(dir);
        if path.is_file() { Ok(()) } else { Err(format!("the package has no {}", self.program)) }
    }

    /// The program.
    ///
    /// # Errors
    ///
    /// If it was not fetched: a text that begins with `not run`.
    pub fn find(&self, dir: &Path) -> Result<PathBuf, String> {
        let path = self.path(dir);
        if path.is_file() {
            return Ok(path);
        }
        Err(format!("not run: {} is not at {}; fetch it with `cargo xtask peers`", self.name, path.display()))
    }
}

/// Each package has a folder of its own, so that no other version is unpacked by accident.
fn downloads(package: &str, dir: &Path) -> PathBuf {
    dir.join("deb").join(package)
}

/// Whether a package was unpacked whole: a fetch that was cut short begins anew.
fn is_unpacked(package: &str, dir: &Path) -> bool {
    downloads(package, dir).join(UNPACKED).is_file()
}

/// What tells that a package was unpacked.
const UNPACKED: &str = "unpacked";

/// The peer of a name.
pub fn named(name: &str) -> Option<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name)
}

/// Fetches and unpacks the peers that are not there yet, and says what it does. All are tried.
///
/// # Errors
///
/// What cannot be had, and why; one line each.
pub fn fetch(dir: &Path, mut say: impl FnMut(String)) -> Result<(), String> {
    let mut missing = Vec::new();
    let mut updated = false;
    for peer in PEERS {
        if !peer.is_whole(dir) {
            say(format!("fetching {}", peer.name));
            if let Err(error) = peer.fetch(dir, &mut updated) {
                missing.push(format!("not run: {} cannot be had: {error}", peer.name));
                continue;
            }
        }
        say(format!("{}: {}", peer.name, peer.path(dir).display()));
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
}

/// Has a package manager fill a folder, and notes what with.
fn fetch_into(folder: &Path, command: &mut Command, packages: &[&str]) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    run(command)?;
    let mark = folder.join(UNPACKED);
    fs::write(&mark, packages.join("\n")).map_err(|error| format!("cannot write {}: {error}", mark.display()))
}

fn fetch_one(package: &str, dir: &Path, updated: &mut bool) -> Result<(), String> {
    let downloads = downloads(package, dir);
    fs::create_dir_all(&downloads).map_err(|error| format!("cannot make {}: {error}", downloads.display()))?;
    let download = || run(Command::new("apt-get").args(["download", package]).current_dir(&downloads));
    if let Err(error) = download() {
        // A fresh machine has no package lists, and those of an old one name what is gone.
        if *updated {
            return Err(error);
        }
        *updated = true;
        run(Command::new("apt-get").arg("update")).map_err(|update| format!("{error}; {update}"))?;
        download()?;
    }
    let entries = fs::read_dir(&downloads).map_err(|error| format!("{}: {error}", downloads.display()))?;
    let mut packages: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    packages.sort();
    let package = packages.pop().ok_or("apt-get brought no package")?;
    run(Command::new("dpkg").arg("-x").arg(package).arg(dir))?;
    let mark = downloads.join(UNPACKED);
    fs::write(&mark, "").map_err(|error| format!("cannot write {}: {error}", mark.display()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} failed: {}", errors.lines().last().unwrap_or("no reason given").trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_was_not_fetched_is_not_run() {
        let error = named("vmagent").unwrap().find(Path::new("/nonexistent")).unwrap_err();
        assert!(error.starts_with("not run: vmagent is not at /nonexistent/usr/bin/vmagent"), "{error}");
        assert!(named("alloy").is_none());
    }

    #[test]
    fn a_peer_is_whole_when_all_of_its_packages_were_unpacked() {
        let dir = std::env::temp_dir().join(format!("corten-peers-{}", std::process::id()));
        let peer = named("rsyslog").unwrap();
        fs::create_dir_all(dir.join("usr/sbin")).unwrap();
        fs::create_dir_all(dir.join("usr/lib/x86_64-linux-gnu/rsyslog")).unwrap();
        fs::write(peer.path(&dir), "").unwrap();
        let (found, libraries) = (peer.find(&dir), peer.libraries(&dir));
        let mut whole = vec![peer.is_whole(&dir)];
        for package in peer.packages() {
            fs::create_dir_all(downloads(package, &dir)).unwrap();
            fs::write(downloads(package, &dir).join(UNPACKED), "").unwrap();
            whole.push(peer.is_whole(&dir));
        }
        let wanted = dir.join("usr/lib/x86_64-linux-gnu");
        fs::remove_dir_all(&dir).unwrap();
        assert!(found.is_ok());
        assert_eq!(libraries, [wanted]);
        assert_eq!(whole, [false, false, false, false, false, false, true]);
    }

    #[test]
    fn peers_are_listed_by_name() {
        assert!(PEERS.is_sorted_by_key(|peer| peer.name));
    }

    #[test]
    fn a_failing_command_gives_its_last_words() {
        let error = run(Command::new("sh").args(["-c", "echo first >&2; echo last >&2; exit 3"])).unwrap_err();
        assert_eq!(error, "sh failed: last");
        assert!(run(&mut Command::new("/nonexistent")).is_err());
    }
}
