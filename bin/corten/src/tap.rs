//! `corten tap`: what passes through a component of the program that runs.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::ArgMatches;
use corten_net::ResponseBody;
use serde_json::Value;

use crate::cli::truth;
use crate::output;
use crate::remote::{Remote, block_on, printable};

/// The longest line of the answer. An item is cut long before.
const LINE_BYTES_MAX: usize = 4 << 20;

pub(crate) fn main(matches: &ArgMatches, component: &str) -> Result<ExitCode, String> {
    let (into, out) = (truth(matches, "in"), truth(matches, "out"));
    let side = match (into, out) {
        (true, false) => "in",
        (false, true) => "out",
        _ => "both",
    };
    let filter = matches.get_one::<String>("filter").cloned().unwrap_or_default();
    let rate = matches.get_one::<i64>("rate").copied().unwrap_or_default();
    let path =
        format!("tap/{}?side={side}&rate={rate}&filter={}", encoded(component, b"-._~/"), encoded(&filter, b"-._~"));
    let as_json = truth(matches, "json");
    block_on(async {
        let answer = Remote::of(matches).await?.get(&path, "application/x-ndjson").await?;
        let mut sums = Sums::default();
        let outcome = tokio::select! {
            outcome = follow(answer.into_body(), as_json, &mut sums) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        output::error(&format!("{}\n", sums.text()));
        outcome.map(|()| ExitCode::SUCCESS)
    })
}

/// Text within a URL.
fn encoded(text: &str, plain: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// How much was seen altogether.
#[derive(Default)]
struct Sums {
    seen: u64,
    looked: u64,
    matched: u64,
    missed: u64,
    limited: bool,
}

impl Sums {
    fn add(&mut self, stat: &Value) {
        let of = |name: &str| stat[name].as_u64().unwrap_or_default();
        self.seen += of("seen");
        self.looked += of("looked");
        self.matched += of("matched");
        self.missed += of("missed");
        self.limited |= stat["limited"] == true;
    }

    fn text(&self) -> String {
        let Sums { seen, looked, matched, missed, .. } = self;
        let limited = if self.limited { ", looking was limited by its cost" } else { "" };
        format!("{seen} passed, {looked} looked at, {matched} matched, {missed} not shown{limited}")
    }
}

/// Prints what comes until there is no more.
async fn follow(mut body: ResponseBody, as_json: bool, sums: &mut Sums) -> Result<(), String> {
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let Some(chunk) = body.chunk().await.map_err(|error| error.to_string())? else { return Ok(()) };
        buffer.extend_from_slice(&chunk);
        if buffer.len() > LINE_BYTES_MAX && !buffer.contains(&b'\n') {
            return Err("the answer has a line without end".to_owned());
        }
        let complete = buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut out = String::new();
        for line in buffer[..complete].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value =
                serde_json::from_slice(line).map_err(|_| "what answers is another program".to_owned())?;
            let data = &event["data"];
            match event["event"].as_str() {
                Some("item") if as_json => _ = writeln!(out, "{data}"),
                Some("item") => out.push_str(&line_of(data)),
                Some("stat") => sums.add(data),
                Some("end") => {
                    output::print(&out);
                    return match data["reason"].as_str() {
                        Some("stopping") => Ok(()),
                        Some("disabled") => Err("live debugging was disabled".to_owned()),
                        Some("gone") => Err("the component is gone".to_owned()),
                        Some("reload") => Err("the configuration was loaded again".to_owned()),
                        _ => Err("the program that runs ended it".to_owned()),
                    };
                }
                _ => {}
            }
        }
        if !out.is_empty() && !output::printed(&out) {
            return Ok(());
        }
        buffer.drain(..complete);
    }
}

/// An item on one line.
fn line_of(item: &Value) -> String {
    let text = |name: &str| printable(item[name].as_str().unwrap_or_default());
    match item["side"] == "in" {
        true => format!("in  from {}: {}\n", text("from"), text("text")),
        false => format!("out to {}: {}\n", text("to"), text("text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_their_part_of_the_url() {
        assert_eq!(encoded("a.b/c d?e&é", b"-._~/"), "a.b/c%20d%3Fe%26%C3%A9");
    }
}
