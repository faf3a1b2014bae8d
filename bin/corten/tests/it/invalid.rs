//! What is refused, and how: `tests/invalid/NAME.alloy` and, in `NAME.txt`, what the program prints about it.
//!
//! The command is `corten validate`; a first line `// corten: run` asks for `corten run`, and
//! `// corten: validate --flag` for flags. With `UPDATE_EXPECTED=1` in the environment the expectations are written
//! instead, to be reviewed.

use std::path::{Path, PathBuf};

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

/// What the program prints about a case.
fn printed(name: &str) -> String {
    let file = format!("{name}.alloy");
    let text = std::fs::read_to_string(folder().join(&file)).expect("the case");
    let first = text.lines().next().and_then(|line| line.strip_prefix("// corten: ")).unwrap_or("validate");
    let scratch = Folder::new("");
    let storage = format!("--storage.path={}", scratch.path().join("data").display());
    let mut words: Vec<&str> = first.split(' ').collect();
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
