//! The reference pages: what the code's schema says, as text for people.
//!
//! `corten schema` is the one source. The pages are committed so that they can be read where the repository is, and a test
//! keeps them equal to what is written here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// Stands at the top of each page.
const NOTICE: &str =
    "<!-- Written by `cargo xtask docs` from the code. Change the doc comments there, not this page. -->\n";

/// The pages by their file names, from the text that `corten schema` prints.
///
/// # Errors
///
/// If the text is not such a schema.
pub fn pages(schema: &str) -> Result<BTreeMap<String, String>, String> {
    let schema: Value = serde_json::from_str(schema).map_err(|error| format!("the schema is no JSON: {error}"))?;
    let mut pages = BTreeMap::new();
    let mut index = format!("{NOTICE}\n# Reference\n");
    for (title, key) in [("Components", "components"), ("Configuration blocks", "config_blocks")] {
        let entries = schema[key].as_object().ok_or_else(|| format!("the schema has no {key}"))?;
        let _ = write!(index, "\n## {title}\n\n");
        for (name, entry) in entries {
            let _ = writeln!(index, "- [`{name}`]({name}.md): {}{}", first_line(text(entry, "doc")), level(entry));
            pages.insert(format!("{name}.md"), page(name, entry));
        }
    }
    let functions = schema["stdlib"].as_object().ok_or("the schema has no stdlib")?;
    let _ = write!(index, "\n## Functions\n\n");
    for (name, function) in functions {
        match function["deprecated_alias_of"].as_str() {
            Some(of) => {
                let _ = writeln!(index, "- `{name}`: deprecated, use `{of}`.");
            }
            None => {
                let (signature, doc) = (text(function, "signature"), one_line(text(function, "doc")));
                let _ = writeln!(index, "- `{signature}`: {doc}{}", level(function));
            }
        }
    }
    let _ = write!(index, "\n## Constants\n\n");
    for name in list(&schema["constants"]).iter().filter_map(Value::as_str) {
        let _ = writeln!(index, "- `{name}`");
    }
    pages.insert("README.md".to_owned(), index);
    Ok(pages)
}

/// The README with its list of components written anew from the reference's index.
///
/// # Errors
///
/// If the README has no such list.
pub fn readme(readme: &str, index: &str) -> Result<String, String> {
    let components = index.split("\n## ").find(|part| part.starts_with("Components\n")).unwrap_or_default();
    let listed = components.lines().filter(|line| line.starts_with("- [`"));
    let list: String = listed.map(|line| line.replacen("](", "](docs/reference/", 1) + "\n").collect();
    let lines: Vec<&str> = readme.split_inclusive('\n').collect();
    let is_listed = |line: &&str| line.starts_with("- [`") && line.contains("](docs/reference/");
    let begin = lines.iter().position(is_listed).ok_or("the README lists no components")?;
    let end = lines.iter().rposition(is_listed).map_or(begin, |last| last + 1);
    Ok(lines[..begin].concat() + &list + &lines[end..].concat())
}

fn page(name: &str, entry: &Value) -> String {
    let mut out = format!("{NOTICE}\n# {name}\n\n{}\n", text(entry, "doc"));
    if text(entry, "stability") != GENERALLY_AVAILABLE {
        let _ = write!(out, "\nStability: {}.\n", text(entry, "stability"));
    }
    out.push_str("\n## Arguments\n\n");
    if list(&entry["arguments"]).is_empty() {
        out.push_str("None.\n");
    }
    arguments(&mut out, &entry["arguments"]);
    if !list(&entry["blocks"]).is_empty() {
        out.push_str("\n## Blocks\n");
        blocks(&mut out, &entry["blocks"]);
    }
    let exports = list(&entry["exports"]);
    if !exports.is_empty() {
        out.push_str("\n## Exports\n\n");
        for export in exports {
            let about = join(text(export, "type"), &level(export));
            item(&mut out, text(export, "name"), &about, text(export, "doc"));
        }
    }
    out
}

const GENERALLY_AVAILABLE: &str = "generally-available";

fn arguments(out: &mut String, arguments: &Value) {
    for argument in list(arguments) {
        let mut about = text(argument, "type").to_owned();
        if argument["required"] == true {
            about.push_str(", required");
        } else if let Some(default) = argument["default"].as_str() {
            let _ = write!(about, ", default `{default}`");
        }
        if let Some(deprecated) = argument["deprecated"].as_str() {
            let _ = write!(about, ", deprecated: {deprecated}");
        }
        let about = join(&about, &level(argument));
        item(out, text(argument, "name"), &about, text(argument, "doc"));
        for value in list(&argument["values"]) {
            let _ =
                writeln!(out, "  - `\"{}\"`: {}{}", text(value, "value"), one_line(text(value, "doc")), level(value));
        }
    }
}

fn blocks(out: &mut String, blocks: &Value) {
    for block in list(blocks) {
        let mut about = Vec::new();
        about.push(if block["required"] == true { "required" } else { "optional" }.to_owned());
        if block["repeatable"] == true {
            about.push("may be repeated".to_owned());
        }
        if block["labeled"] == true {
            about.push("takes a label".to_owned());
        }
        let stability = text(block, "stability");
        if stability != GENERALLY_AVAILABLE {
            about.push(stability.to_owned());
        }
        let path = text(block, "path");
        let _ = write!(out, "\n### {path}\n\n{} ({})\n", text(block, "doc"), about.join(", "));
        if !list(&block["arguments"]).is_empty() {
            out.push('\n');
        }
        arguments(out, &block["arguments"]);
        self::blocks(out, &block["blocks"]);
    }
}

fn item(out: &mut String, name: &str, about: &str, doc: &str) {
    // Paragraphs after the first stay within the item.
    let doc = doc.replace('\n', "\n  ").replace("\n  \n", "\n\n");
    let _ = writeln!(out, "- `{name}` ({about}): {doc}");
}

fn level(entry: &Value) -> String {
    match text(entry, "stability") {
        GENERALLY_AVAILABLE | "" => String::new(),
        level => format!(" ({level})"),
    }
}

fn join(about: &str, level: &str) -> String {
    match level.trim_matches([' ', '(', ')']) {
        "" => about.to_owned(),
        level => format!("{about}, {level}"),
    }
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn first_line(doc: &str) -> String {
    one_line(doc.split("\n\n").next().unwrap_or_default())
}

fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_the_schema_says() {
        let schema = r#"{
            "components": { "a.b": {
                "stability": "experimental", "doc": "Does b.\nWell.\n\nMore.",
                "arguments": [
                    { "name": "x", "type": "string", "required": true, "default": null, "stability": "generally-available",
                      "doc": "First.\n\nSecond.", "values": [{ "value": "v", "doc": "A\nvalue.", "stability": "experimental" }] },
                    { "name": "y", "type": "int", "required": false, "default": "5", "deprecated": "use x",
                      "stability": "public-preview", "doc": "Y." }
                ],
                "blocks": [{ "path": "p.q", "required": false, "repeatable": true, "labeled": false,
                             "stability": "generally-available", "doc": "Q.", "arguments": [] }],
                "exports": [{ "name": "e", "type": "any", "doc": "E.", "stability": "generally-available" }]
            } },
            "config_blocks": {}, "constants": ["constants.os"],
            "stdlib": { "f": { "deprecated_alias_of": "g" }, "g": { "signature": "g(x) y", "doc": "Gs.", "stability": "experimental" } }
        }"#;
        let pages = pages(schema).unwrap();
        let page = format!(
            "{NOTICE}\n# a.b\n\nDoes b.\nWell.\n\nMore.\n\nStability: experimental.\n\n## Arguments\n\n\
             - `x` (string, required): First.\n\n  Second.\n  - `\"v\"`: A value. (experimental)\n\
             - `y` (int, default `5`, deprecated: use x, public-preview): Y.\n\n\
             ## Blocks\n\n### p.q\n\nQ. (optional, may be repeated)\n\n## Exports\n\n- `e` (any): E.\n"
        );
        assert_eq!(pages["a.b.md"], page);
        let index = format!(
            "{NOTICE}\n# Reference\n\n## Components\n\n- [`a.b`](a.b.md): Does b. Well. (experimental)\n\n\
             ## Configuration blocks\n\n\n## Functions\n\n- `f`: deprecated, use `g`.\n- `g(x) y`: Gs. (experimental)\n\n\
             ## Constants\n\n- `constants.os`\n"
        );
        assert_eq!(pages["README.md"], index);
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for text in ["", "{}", "{\"components\": 1}"] {
            assert!(pages(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_readme_lists_what_the_index_does() {
        let index = "# Reference\n\n## Components\n\n- [`a.b`](a.b.md): Does. (experimental)\n- [`c.d`](c.d.md): Does too.\n\n## Functions\n\n- `f`: x\n";
        let before =
            "# C\n\n- [`x`](docs/reference/x.md): Gone.\n- [`y`](docs/reference/y.md): Gone.\n\n- [a](b): stays\n";
        let after = "# C\n\n- [`a.b`](docs/reference/a.b.md): Does. (experimental)\n- [`c.d`](docs/reference/c.d.md): Does too.\n\n- [a](b): stays\n";
        assert_eq!(readme(before, index).unwrap(), after);
        assert!(readme("# C\n", index).is_err());
    }
}
