//! The repository's pages and examples say what the program does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::output;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(folder: &str) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(root().join(folder)).expect("the folder");
    let files = entries.map(|entry| {
        let entry = entry.expect("an entry");
        (entry.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(entry.path()).expect("a text"))
    });
    files.collect()
}

#[test]
fn the_reference_is_what_the_code_says() {
    let (success, schema, stderr) = output(&["schema"]);
    assert!(success, "{stderr}");
    let (wanted, pages) = (xtask::reference::pages(&schema).expect("pages"), files("docs/reference"));
    let names: Vec<&String> = wanted.keys().chain(pages.keys()).collect();
    let old: Vec<&String> = names.into_iter().filter(|name| wanted.get(*name) != pages.get(*name)).collect();
    assert!(old.is_empty(), "write the reference anew with `cargo xtask docs`: {old:?}");
}

#[test]
fn the_examples_are_valid_and_formatted() {
    let examples = files("examples");
    assert!(!examples.is_empty());
    for name in examples.keys() {
        let path = root().join("examples").join(name).display().to_string();
        // The README's commands have the flag, too.
        let is_experimental = ["otlp-look.alloy", "quickstart.alloy"].contains(&name.as_str());
        let level = if is_experimental { "experimental" } else { "generally-available" };
        let level = format!("--stability.level={level}");
        for command in [&["validate", &level][..], &["fmt", "--test"]] {
            let (success, _, stderr) = output(&[command, &[&*path]].concat());
            assert!(success, "{command:?} {name}: {stderr}");
        }
    }
}

#[test]
fn the_readme_names_what_there_is_and_its_example_is_one_of_the_examples() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the page");
    let (_, schema, _) = output(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("a schema");
    let wanted: Vec<&String> = schema["components"].as_object().expect("components").keys().collect();
    let listed = readme.lines().filter_map(|line| line.strip_prefix("- [`")?.split_once("`](docs/reference/"));
    assert_eq!(listed.map(|(name, _)| name).collect::<Vec<_>>(), wanted);
    for name in ["otlp-look", "quickstart"] {
        assert!(readme.contains(&format!(" run examples/{name}.alloy --stability.level=experimental\n")));
    }
    let blocks: Vec<&str> = readme.split("```").collect();
    let shown = blocks.iter().filter_map(|block| block.strip_prefix("alloy\n")).collect::<Vec<_>>();
    let examples = files("examples");
    assert!(!shown.is_empty());
    for shown in shown {
        assert!(examples.values().any(|example| example == shown), "it is no example: {shown}");
    }
}
