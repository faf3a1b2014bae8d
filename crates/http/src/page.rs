//! The pages for people: the components with their health, and each of them with what it was told and what it offers.
//!
//! They are plain: written whole by the server, without scripts, and with all that comes from outside escaped.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use corten_component::HealthState;
use corten_component::log::rfc3339;
use corten_component::metrics::Snapshot;
use corten_config::encode::Item;
use corten_runtime::{Controller, Node};
use corten_syntax::quote;
use tokio::time::Instant;

use crate::{path, web};

/// The most bytes of one body that the list of components shows; the component's own page shows more.
const LISTED_BYTES_MAX: usize = 4 << 10;
/// The most bytes of one body that a component's own page shows. The web API shows all.
const SHOWN_BYTES_MAX: usize = 1 << 20;
/// How long a page waits for the arguments of components that are being evaluated, all together.
const ARGUMENTS_WAIT: Duration = Duration::from_secs(1);

/// What all pages say of the program, and where they are.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// What the paths of all pages begin with: empty, or begins with a slash and ends without one.
    pub(crate) prefix: String,
    /// The version of the program.
    pub(crate) version: String,
}

impl Site {
    /// The list of components.
    pub(crate) async fn index(&self, controller: &Controller) -> String {
        let deadline = Instant::now() + ARGUMENTS_WAIT;
        let nodes = controller.components();
        let unhealthy = nodes.iter().filter(|node| node.host.health.current().state == HealthState::Unhealthy).count();
        let mut out = self.head("Components");
        let _ = match (nodes.len(), unhealthy) {
            (0, _) => write!(out, "<p>No components run.</p>"),
            (1, 0) => write!(out, "<p>1 component runs, and is not unhealthy.</p>"),
            (all, 0) => write!(out, "<p>{all} components run, none is unhealthy.</p>"),
            (all, bad) => write!(out, "<p>{all} components run, <b class=\"unhealthy\">{bad} unhealthy</b>.</p>"),
        };
        if !nodes.is_empty() {
            out.push_str("<table><tr><th>Health</th><th>Component</th><th>Arguments and exports</th></tr>\n");
        }
        for node in &nodes {
            let health = node.host.health.current();
            let (state, message) = (health.state.as_str(), escaped(&health.message));
            let _ = write!(
                out,
                "<tr><td><b class=\"{state}\" title=\"{message}\">{state}</b></td><td>{}</td><td>",
                self.link(&node.id)
            );
            for (title, text) in [("arguments", arguments(node, deadline).await), ("exports", Some(exports(node)))] {
                let text = text.unwrap_or_else(|| UNDER_WAY.to_owned());
                if !text.is_empty() {
                    let _ =
                        write!(out, "<details><summary>{title}</summary>{}</details>", pre(&text, LISTED_BYTES_MAX));
                }
            }
            if health.state != HealthState::Healthy {
                let _ = write!(out, "{message}");
            }
            out.push_str("</td></tr>\n");
        }
        if !nodes.is_empty() {
            out.push_str("</table>\n");
        }
        out.push_str(FOOT);
        out
    }

    /// One component.
    pub(crate) async fn component(&self, controller: &Controller, id: &str) -> Option<String> {
        let node = controller.component(id)?;
        let nodes = controller.components();
        let health = node.host.health.current();
        let state = health.state.as_str();
        let mut out = self.head(&node.id);
        let _ = writeln!(
            out,
            "<p><b class=\"{state}\">{state}</b>: {} <small>since {}</small></p>",
            escaped(&health.message),
            rfc3339(health.updated)
        );
        let of_components = |ids: Vec<Arc<str>>| {
            let known = |id: &Arc<str>| nodes.iter().any(|node| *node.id == **id);
            ids.into_iter().filter(known).map(|id| id.to_string()).collect::<Vec<_>>()
        };
        for (title, ids) in [
            ("Sends to", node.sends_to().iter().map(ToString::to_string).collect()),
            ("Refers to", of_components(node.references_to())),
            ("Is referred to by", of_components(node.referenced_by())),
        ] {
            if !ids.is_empty() {
                let links: Vec<String> = ids.iter().map(|id| self.link(id)).collect();
                let _ = writeln!(out, "<p>{title} {}.</p>", links.join(", "));
            }
        }
        let info = node.host.debug_info.lock().clone();
        let info = info.map(|info| text_of(&info.debug_info())).unwrap_or_default();
        let mut metrics = Snapshot::default();
        node.host.registry.gather(&[], &mut metrics);
        for (title, text) in [
            (
                "Arguments",
                arguments(&node, Instant::now() + ARGUMENTS_WAIT).await.unwrap_or_else(|| UNDER_WAY.to_owned()),
            ),
            ("Exports", exports(&node)),
            ("Debug info", info),
            ("Metrics", metrics.to_text()),
        ] {
            if !text.is_empty() {
                let _ = writeln!(out, "<h2>{title}</h2>{}", pre(&text, SHOWN_BYTES_MAX));
            }
        }
        out.push_str(FOOT);
        Some(out)
    }

    fn head(&self, title: &str) -> String {
        let (title, prefix, version) = (escaped(title), escaped(&self.prefix), escaped(&self.version));
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} - Corten</title>\
             <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\n<body><nav>\
             <a href=\"{prefix}/\">Corten</a> <small>{version}</small></nav>\n<h1>{title}</h1>\n"
        )
    }

    fn link(&self, id: &str) -> String {
        let target = format!("{}/component/{}", self.prefix, path::encode(id));
        format!("<a href=\"{}\">{}</a>", escaped(&target), escaped(id))
    }
}

/// What stands where arguments should when they cannot be had now.
const UNDER_WAY: &str = "// it is being evaluated";

const FOOT: &str = "</body></html>\n";

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:70rem;padding:1rem;color:#222;\
background:#fff}nav{border-bottom:1px solid #ccc;padding-bottom:.5rem}nav a{font-weight:bold}a{color:#8a3b12}\
h1{font-size:1.4rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-bottom:.3rem}small{color:#666}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.35rem .8rem .35rem 0;\
border-bottom:1px solid #e4e4e4}pre{background:#f5f3f1;padding:.6rem;margin:.2rem 0;overflow:auto;tab-size:4}\
summary{cursor:pointer;color:#555}.healthy{color:#1a7030}.unhealthy,.exited{color:#b3171c}.unknown{color:#7a5b00}";

/// The arguments as text of the language; nothing while they are being changed.
async fn arguments(node: &Node, deadline: Instant) -> Option<String> {
    let items = tokio::time::timeout_at(deadline, node.arguments()).await.ok()?;
    Some(text_of(&items))
}

fn exports(node: &Node) -> String {
    text_of(&web::exports(node))
}

/// A body as text of the language, without the braces around it. Secrets are masked, as in every text of a value.
fn text_of(items: &[Item]) -> String {
    let mut out = String::new();
    write_items(items, 0, &mut out);
    out
}

fn write_items(items: &[Item], depth: usize, out: &mut String) {
    let indent = "\t".repeat(depth);
    let width = |item: &Item| match item {
        Item::Attr { name, .. } => name.chars().count(),
        Item::Block { .. } => 0,
    };
    let width = items.iter().map(width).max().unwrap_or(0);
    for item in items {
        match item {
            Item::Attr { name, value } => {
                // Line breaks within strings are escaped: those that there are separate fields.
                let value = value.to_string().replace('\n', &format!("\n{indent}"));
                let _ = writeln!(out, "{indent}{name:width$} = {value}");
            }
            Item::Block { name, label, body } => {
                let label = label.as_deref().filter(|label| !label.is_empty());
                let label = label.map_or_else(String::new, |label| format!(" {}", quote(label)));
                if body.is_empty() {
                    let _ = writeln!(out, "{indent}{name}{label} {{ }}");
                } else {
                    let _ = writeln!(out, "{indent}{name}{label} {{");
                    write_items(body, depth + 1, out);
                    let _ = writeln!(out, "{indent}}}");
                }
            }
        }
    }
}

/// Text as it stands, up to a limit.
fn pre(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return format!("<pre>{}</pre>", escaped(text));
    }
    let shown = &text[..text.floor_char_boundary(bytes_max)];
    format!("<pre>{}\n… {} bytes more</pre>", escaped(shown), text.len() - shown.len())
}

/// Text with nothing that HTML would read, in elements and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use corten_config::value::Value;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_is_shown_in_the_language_with_its_secrets_masked() {
        let attr = |name: &str, value: Value| Item::Attr { name: name.to_owned(), value };
        let block = |name: &str, label: Option<&str>, body: Vec<Item>| Item::Block {
            name: name.to_owned(),
            label: label.map(str::to_owned),
            body,
        };
        let targets = Value::array([Value::object([(Arc::from("a"), Value::string("<b>"))].into_iter().collect())]);
        let items = [
            attr("url", Value::string("x")),
            attr("password", Value::secret("hush")),
            block("empty", None, Vec::new()),
            block("rule", Some("one"), vec![attr("targets", targets)]),
        ];
        let expected = "url      = \"x\"\npassword = (secret)\nempty { }\nrule \"one\" {\n\ttargets = [{\n\t\ta = \"<b>\",\n\
                        \t}]\n}\n";
        assert_eq!(text_of(&items), expected);
        assert_eq!(text_of(&[]), "");
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(pre("a<b", 3), "<pre>a&lt;b</pre>");
        assert_eq!(pre("aéé", 2), "<pre>a\n… 4 bytes more</pre>");
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_place(text in any::<String>()) {
            let escaped = escaped(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            let back = escaped.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
            prop_assert_eq!(back.replace("&amp;", "&"), text);
        }
    }
}
