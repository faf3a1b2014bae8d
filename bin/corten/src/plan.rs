//! `corten plan`: what a reload of the program that runs would change.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::ArgMatches;
use serde_json::Value;

use crate::cli::truth;
use crate::output;
use crate::remote::{Remote, block_on, printable};

/// The status where something would change.
const CHANGES: u8 = 2;

pub(crate) fn main(matches: &ArgMatches) -> Result<ExitCode, String> {
    let plan = block_on(async { Remote::of(matches).await?.json("plan").await })?;
    let of = |name: &str| plan[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let refused = of("diagnostics").iter().any(|diagnostic| diagnostic["severity"] == "error");
    if truth(matches, "json") {
        output::print(&format!("{plan:#}\n"));
    } else if !refused {
        output::print(&text(&plan));
    }
    let mut told = String::new();
    for diagnostic in of("diagnostics") {
        let text = |name: &str| printable(diagnostic[name].as_str().unwrap_or_default());
        let (line, column) = (&diagnostic["line"], &diagnostic["column"]);
        let warning = if diagnostic["severity"] == "warning" { "warning: " } else { "" };
        let place = if *line == 0 { text("file") } else { format!("{}:{line}:{column}", text("file")) };
        let _ = writeln!(told, "{place}: {warning}{}", text("message"));
    }
    output::error(&told);
    if refused {
        return Err("the configuration would be refused".to_owned());
    }
    let changes = ["created", "updated", "affected", "removed"].iter().any(|name| !of(name).is_empty());
    Ok(if changes { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS })
}

/// One line for each change.
fn text(plan: &Value) -> String {
    let mut out = String::new();
    for (name, sign) in [("created", '+'), ("updated", '~'), ("affected", '*'), ("removed", '-')] {
        for change in plan[name].as_array().into_iter().flatten() {
            let arguments = change["arguments"].as_array().into_iter().flatten();
            let arguments: Vec<String> =
                arguments.filter_map(|argument| argument["name"].as_str()).map(printable).collect();
            let why = printable(change["why"].as_str().unwrap_or_default());
            let mut more = Vec::new();
            if name == "updated" && !arguments.is_empty() {
                more.push(arguments.join(", "));
            }
            if !why.is_empty() {
                more.push(why);
            }
            let _ = write!(out, "{sign} {}", printable(change["id"].as_str().unwrap_or_default()));
            let _ = match more.is_empty() {
                true => writeln!(out),
                false => writeln!(out, " ({})", more.join("; ")),
            };
        }
    }
    let _ = writeln!(out, "{} untouched", plan["untouched"].as_u64().unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_change_has_its_sign() {
        let change = |id: &str, why: &str, arguments: &[&str]| {
            let arguments: Vec<Value> = arguments.iter().map(|name| json!({ "name": name })).collect();
            json!({ "id": id, "why": why, "arguments": arguments })
        };
        let plan = json!({
            "created": [change("a", "", &["x"])],
            "updated": [change("b", "", &["x", "y"]), change("c", "because", &["z"])],
            "affected": [change("d", "refers to b", &[])],
            "removed": [change("e\u{1b}", "", &[])],
            "untouched": 3,
        });
        let expected = "+ a\n~ b (x, y)\n~ c (z; because)\n* d (refers to b)\n- e\\u{1b}\n3 untouched\n";
        assert_eq!(text(&plan), expected);
    }
}
