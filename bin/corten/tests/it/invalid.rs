//! What is refused, and how: `tests/invalid/NAME.alloy` and, in `NAME.txt`, what the program prints about it.
//!
//! The command is `corten validate`; a first line `// corten: run` asks for `corten run`, and
//! `// corten: validate --flag` for flags. With `UPDATE_EXPECTED=1` in the environment the expectations are written
//! instead, to be reviewed.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::{Folder, corten};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/invalid")
}

/// All cases by name.
fn cases() -> Vec<String> {
    let files = std::fs::read_dir(folder()).expect("the folder").map(|entry| entry.expect("an entry").file_name());
    let names = files.filter_map(|name| name.to_str()?.strip_suffix(".alloy").map(str::to_owned));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// The command of a case, as words.
fn command(text: &str) -> Vec<&str> {
    let first = text.lines().next().and_then(|line| line.strip_prefix("// corten: "));
    first.unwrap_or("validate").split(' ').collect()
}

/// What the program prints about a case.
fn printed(name: &str) -> String {
    let file = format!("{name}.alloy");
    let text = std::fs::read_to_string(folder().join(&file)).expect("the case");
    let scratch = Folder::new("");
    let storage = format!("--storage.path={}", scratch.path().join("data").display());
    let mut words = command(&text);
    if words[0] == "run" {
        words.extend([storage.as_str(), "--server.http.listen-addr=127.0.0.1:0"]);
    }
    words.push(&file);
    let output = corten(&words).current_dir(folder()).output().expect("the program runs");
    assert!(!output.status.success(), "{name} is accepted");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn what_is_wrong_is_refused_with_these_words() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let cases = cases();
    assert!(cases.len() >= 60, "cases are missing");
    let mut wrong = Vec::new();
    for name in cases {
        let path = folder().join(format!("{name}.txt"));
        let printed = printed(&name);
        if update {
            std::fs::write(path, printed).expect("a file");
            continue;
        }
        let expected = std::fs::read_to_string(path).unwrap_or_default();
        if printed != expected {
            wrong.push(format!("{name}: expected\n{expected}\nbut it is\n{printed}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Cases that only a check refuses: a warning, and a list of what does not fit that is empty as long as nothing is found.
const ONLY_CHECKED: &[&str] = &["function_deprecated", "wiring_targets_for_receivers"];

/// Whether the program runs a case.
fn runs(name: &str) -> bool {
    let scratch = Folder::new("");
    let storage = format!("--storage.path={}", scratch.path().join("data").display());
    let words = ["run", &storage, "--server.http.listen-addr=127.0.0.1:0", &format!("{name}.alloy")];
    let mut child = corten(&words)
        .current_dir(folder())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let lines = BufReader::new(child.stderr.take().expect("its standard error")).lines();
    let runs = lines.map_while(Result::ok).any(|line| line.contains("now listening for http traffic"));
    // It has ended already, unless it runs.
    let _ = child.kill();
    child.wait().expect("it ends");
    runs
}

#[test]
fn what_a_check_refuses_the_program_refuses_as_well() {
    let check = |name: &String| {
        let text = std::fs::read_to_string(folder().join(format!("{name}.alloy"))).expect("the case");
        command(&text) == ["validate"]
    };
    let runs: Vec<String> = cases().into_iter().filter(check).filter(|name| runs(name)).collect();
    assert_eq!(runs, ONLY_CHECKED);
}
