//! The development commands: `cargo xtask`.

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const HELP: &str = "\
cargo xtask test             all that a change has to pass: format, lints, tests, with the peers
cargo xtask peers            fetch what tests talk to, from Debian's packages, pip and npm, into target/peers
cargo xtask docs             write docs/reference from the code
cargo xtask ui               build the web interface into ui/dist, with npm: packages, types, tests, bundle
cargo xtask new <name>       write a new component such as prometheus.thing, with its page
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["test"] => test(),
        ["peers"] => peers(),
        ["docs"] => docs(),
        ["ui"] => xtask::ui::build(&root().join("ui"), say),
        ["new", name] => new(name),
        [] | ["help" | "--help" | "-h"] => {
            say(HELP.trim_end().to_owned());
            Ok(())
        }
        _ => Err(format!("it is not known what to do\n{HELP}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format!("error: {}", error.trim_end()));
            ExitCode::FAILURE
        }
    }
}

/// The repository.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Where cargo builds: this program is in a folder of it.
fn build_dir() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let around = program.parent().and_then(Path::parent);
    around.map_or_else(|| root().join("target"), Path::to_owned)
}

/// A step of `test`: its name, and the arguments of cargo.
const STEPS: &[(&str, &[&str])] = &[
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    ("tests", &["test", "--workspace"]),
];

fn test() -> Result<(), String> {
    let mut ran = Vec::new();
    // What cannot be had is told now, and again by each test that is not run.
    let peers = match peers() {
        Ok(()) => "peers: there".to_owned(),
        Err(error) => {
            say(error.clone());
            format!("peers: {error}")
        }
    };
    ran.push(peers);
    let ui = root().join("ui");
    match xtask::ui::packages(&ui, say) {
        Ok(()) => {
            let checked = xtask::ui::check(&ui, say);
            ran.push(format!("web interface: {}", if checked.is_ok() { "passed" } else { "FAILED" }));
            if let Err(error) = checked {
                say(format!("== what ran\n{}", ran.join("\n")));
                return Err(error);
            }
        }
        // Each test that needs them says so again.
        Err(error) => {
            say(format!("not run: tests of the web interface: {error}"));
            ran.push(format!("web interface: not run: {error}"));
        }
    }
    for (name, arguments) in STEPS {
        let shown = format!("cargo {}", arguments.join(" "));
        say(format!("== {name}: {shown}"));
        let result = cargo(arguments);
        let outcome = if result.is_ok() { "passed" } else { "FAILED" };
        ran.push(format!("{name}: {outcome}: {shown}"));
        if let Err(error) = result {
            say(format!("== what ran\n{}", ran.join("\n")));
            return Err(error);
        }
    }
    say(format!("== what ran\n{}", ran.join("\n")));
    Ok(())
}

fn peers() -> Result<(), String> {
    xtask::peers::fetch(&build_dir().join("peers"), say)
}

fn new(name: &str) -> Result<(), String> {
    let place = xtask::new::Place::of(name)?;
    for path in xtask::new::write(&root(), &place)? {
        say(format!("wrote {}", path.display()));
    }
    cargo(&["fmt", "-p", &place.package()])?;
    docs()?;
    say(format!("now write what it does, and run: cargo test -p {}", place.package()));
    Ok(())
}

fn docs() -> Result<(), String> {
    let mut command = cargo_command();
    let output = command.args(["run", "-q", "-p", "corten", "--", "schema"]).stderr(std::process::Stdio::inherit());
    let output = output.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err("`corten schema` failed".to_owned());
    }
    let pages = xtask::reference::pages(&String::from_utf8_lossy(&output.stdout))?;
    let dir = root().join("docs/reference");
    let told = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let readme = root().join("README.md");
    let text = fs::read_to_string(&readme).map_err(|error| told(&readme, error))?;
    let written = xtask::reference::readme(&text, pages.get("README.md").map_or("", String::as_str))?;
    if written != text {
        fs::write(&readme, written).map_err(|error| told(&readme, error))?;
        say(format!("wrote {}", readme.display()));
    }
    fs::create_dir_all(&dir).map_err(|error| told(&dir, error))?;
    for entry in fs::read_dir(&dir).map_err(|error| told(&dir, error))? {
        let entry = entry.map_err(|error| told(&dir, error))?;
        // The page of a component that is gone goes, too.
        if !pages.contains_key(&*entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path()).map_err(|error| told(&entry.path(), error))?;
            say(format!("removed {}", entry.path().display()));
        }
    }
    for (name, page) in pages {
        let path = dir.join(name);
        if fs::read_to_string(&path).is_ok_and(|have| have == page) {
            continue;
        }
        fs::write(&path, page).map_err(|error| told(&path, error))?;
        say(format!("wrote {}", path.display()));
    }
    Ok(())
}

fn cargo_command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    if env::var_os("CI").is_some() {
        // What is built once gains nothing from the records for the next build, and they are gigabytes.
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

fn cargo(arguments: &[&str]) -> Result<(), String> {
    let status = cargo_command().args(arguments).status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {} failed", arguments.join(" "))) }
}

/// Writes a line for the person at the terminal. One who does not listen misses it.
fn say(line: String) {
    let _ = writeln!(io::stderr(), "{line}");
}
