//! Groups of targets as files and HTTP services list them:
//! `[{"targets": ["host:1", "host:2"], "labels": {"job": "x"}}]`, in JSON or YAML.
//!
//! The format is that of Prometheus' file and HTTP service discovery.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use corten_signal::target::Target;
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// The label with the address of a target.
pub(crate) const ADDRESS: &str = "__address__";

/// The most targets that one list may have.
pub(crate) const TARGETS_MAX: usize = 1_000_000;

/// The key under which a mapping takes over the fields of others.
const MERGE: &str = "<<";

/// How deep a list may be nested: far deeper than any that makes sense.
const NESTING_MAX: usize = 16;

/// Targets that have labels in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Group {
    addresses: Vec<String>,
    labels: BTreeMap<String, String>,
}

/// The targets of groups, each with a label that says where it comes from.
///
/// # Errors
///
/// More than [`TARGETS_MAX`] targets, and labels that are too long together.
pub(crate) fn targets(groups: &[Group], meta: (&str, &str)) -> Result<Vec<Target>, String> {
    let count: usize = groups.iter().map(|group| group.addresses.len()).sum();
    if count > TARGETS_MAX {
        return Err(format!("{count} targets are more than the limit of {TARGETS_MAX}"));
    }
    let mut targets = Vec::with_capacity(count);
    for group in groups {
        let labels = || group.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for address in &group.addresses {
            // What is said last counts: a group cannot say otherwise where its targets come from.
            let own = [meta, (ADDRESS, address.as_str())];
            targets.push(Target::new(labels().chain(own)).map_err(|error| error.to_string())?);
        }
    }
    Ok(targets)
}

fn check(groups: Vec<Option<Group>>) -> Result<Vec<Group>, String> {
    let groups: Option<Vec<Group>> = groups.into_iter().collect();
    let groups = groups.ok_or("nil target group item found")?;
    if groups.iter().any(|group| group.labels.contains_key("")) {
        return Err("\"\" is not a valid label name".to_owned());
    }
    Ok(groups)
}

/// Reads a list in JSON. Bytes that are no UTF-8 are replaced, and the names of fields may be written in any case, as the
/// library of the reference has it.
///
/// # Errors
///
/// What makes it no list of groups, also a field that groups do not have.
pub(crate) fn from_json(text: &[u8]) -> Result<Vec<Group>, String> {
    let text = String::from_utf8_lossy(text);
    let groups: Option<Vec<Option<Group>>> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    check(groups.unwrap_or_default())
}

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(GroupVisitor)
    }
}

struct GroupVisitor;

impl<'de> Visitor<'de> for GroupVisitor {
    type Value = Group;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a group of targets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Group, A::Error> {
        let mut group = Group::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.to_ascii_lowercase().as_str() {
                "targets" => {
                    let addresses: Option<Vec<Option<String>>> = map.next_value()?;
                    group.addresses =
                        addresses.unwrap_or_default().into_iter().map(Option::unwrap_or_default).collect();
                }
                "labels" => {
                    let labels: Option<LabelMap> = map.next_value()?;
                    group.labels.extend(labels.map(|labels| labels.0).unwrap_or_default());
                }
                _ => return Err(A::Error::custom(format!("unknown field {name:?}"))),
            }
        }
        Ok(group)
    }
}

/// Labels of which one may stand twice: the last counts.
struct LabelMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for LabelMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let labels = BTreeMap::<String, Option<String>>::deserialize(deserializer)?;
        Ok(LabelMap(labels.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect()))
    }
}

/// Reads a list in YAML, of which the first document counts.
///
/// # Errors
///
/// What makes it no list of groups, also a field that groups do not have or a key that stands twice.
pub(crate) fn from_yaml(text: &[u8]) -> Result<Vec<Group>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "yaml: invalid UTF-8")?;
    let failed = |error: String| format!("yaml: {error}");
    let root = read(text).map_err(failed)?;
    let groups = match root.as_deref() {
        None => Vec::new(),
        Some(Node::Sequence(items)) => {
            items.iter().map(|item| group(item).map_err(failed)).collect::<Result<Vec<_>, _>>()?
        }
        Some(node) if node.is_null() => Vec::new(),
        Some(node) => return Err(failed(format!("cannot unmarshal {} into a list of groups", node.describe()))),
    };
    check(groups)
}

/// A value of YAML. What an alias stands for is shared, so that aliases cost nothing.
#[derive(Debug)]
enum Node {
    /// Its text, and whether it stands for itself, in quotes, whatever it looks like.
    Scalar(String, bool),
    Sequence(Vec<Arc<Node>>),
    /// By the keys as they are written, `<<` among them.
    Mapping(BTreeMap<String, Arc<Node>>),
}

impl Node {
    fn is_null(&self) -> bool {
        matches!(self, Node::Scalar(text, false) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    fn describe(&self) -> &'static str {
        match self {
            Node::Scalar(..) => "a scalar",
            Node::Sequence(_) => "a sequence",
            Node::Mapping(_) => "a mapping",
        }
    }

    /// The text of a scalar, as it is written: what looks like a number stays what it looks like.
    fn text(&self) -> Result<String, String> {
        match self {
            _ if self.is_null() => Ok(String::new()),
            Node::Scalar(text, _) => Ok(text.clone()),
            _ => Err(format!("cannot unmarshal {} into a string", self.describe())),
        }
    }
}

fn group(node: &Node) -> Result<Option<Group>, String> {
    let fields = match node {
        Node::Mapping(_) => fields(node, 0)?,
        node if node.is_null() => return Ok(None),
        node => return Err(format!("cannot unmarshal {} into a group of targets", node.describe())),
    };
    let mut group = Group::default();
    for (name, value) in fields {
        match (name, &*value) {
            ("targets", Node::Sequence(items)) => {
                if items.len() > TARGETS_MAX {
                    return Err(format!("a group has more than the limit of {TARGETS_MAX} targets"));
                }
                group.addresses = items.iter().map(|item| item.text()).collect::<Result<_, _>>()?;
            }
            ("labels", labels @ Node::Mapping(_)) => {
                for (name, value) in self::fields(labels, 0)? {
                    group.labels.insert(name.to_owned(), value.text()?);
                }
            }
            ("targets" | "labels", value) if value.is_null() => {}
            ("targets" | "labels", value) => return Err(format!("cannot unmarshal {} into {name}", value.describe())),
            _ => return Err(format!("field {name} not found in a group of targets")),
        }
    }
    Ok(Some(group))
}

/// The fields of a mapping with those that `<<` merges in, where what is there already counts.
fn fields(node: &Node, depth: usize) -> Result<BTreeMap<&str, Arc<Node>>, String> {
    let wrong = || "map merge requires map or sequence of maps as the value".to_owned();
    let Node::Mapping(pairs) = node else { return Err(wrong()) };
    if depth > NESTING_MAX {
        return Err(format!("exceeded max depth of {NESTING_MAX}"));
    }
    let own = pairs.iter().filter(|(name, _)| *name != MERGE);
    let mut fields: BTreeMap<&str, Arc<Node>> = own.map(|(name, value)| (name.as_str(), Arc::clone(value))).collect();
    let sources: Vec<&Node> = match pairs.get(MERGE).map(|merged| &**merged) {
        None => Vec::new(),
        Some(Node::Sequence(items)) => items.iter().map(|item| &**item).collect(),
        Some(node) => vec![node],
    };
    for source in sources {
        for (name, value) in self::fields(source, depth + 1)? {
            fields.entry(name).or_insert(value);
        }
    }
    Ok(fields)
}

/// A sequence or mapping that is being read, with the number of its anchor.
struct Open {
    anchor: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Arc<Node>>),
    /// The pairs so far, and a key that waits for its value.
    Mapping(BTreeMap<String, Arc<Node>>, Option<String>),
}

/// Reads the first document; nothing if there is none.
fn read(text: &str) -> Result<Option<Arc<Node>>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut anchors: BTreeMap<usize, Arc<Node>> = BTreeMap::new();
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| format!("line {}: {}", error.marker().line(), error.info()))?;
        let mut begin = |anchor, content| {
            open.push(Open { anchor, content });
            if open.len() > NESTING_MAX { Err(format!("exceeded max depth of {NESTING_MAX}")) } else { Ok(()) }
        };
        let (anchor, node) = match event {
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => continue,
            Event::StreamEnd | Event::DocumentEnd => break,
            Event::SequenceStart(anchor, _) => {
                begin(anchor, Content::Sequence(Vec::new()))?;
                continue;
            }
            Event::MappingStart(anchor, _) => {
                begin(anchor, Content::Mapping(BTreeMap::new(), None))?;
                continue;
            }
            Event::Alias(anchor) => (0, anchors.get(&anchor).cloned().ok_or("anchor value contains itself")?),
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = style != ScalarStyle::Plain || tag.is_some();
                (anchor, Arc::new(Node::Scalar(text.into_owned(), quoted)))
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open { anchor, content: Content::Sequence(items) }) => (anchor, Arc::new(Node::Sequence(items))),
                Some(Open { anchor, content: Content::Mapping(pairs, _) }) => (anchor, Arc::new(Node::Mapping(pairs))),
                None => break,
            },
        };
        if anchor > 0 {
            anchors.insert(anchor, Arc::clone(&node));
        }
        match open.last_mut().map(|open| &mut open.content) {
            None => return Ok(Some(node)),
            Some(Content::Sequence(items)) => items.push(node),
            Some(Content::Mapping(pairs, key)) => match key.take() {
                None => *key = Some(node.text()?),
                Some(key) if pairs.contains_key(&key) => {
                    return Err(format!("line {}: key {key:?} already set in map", span.start.line()));
                }
                Some(key) => drop(pairs.insert(key, node)),
            },
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Read = fn(&[u8]) -> Result<Vec<Group>, String>;

    fn shown(read: Read, text: &str) -> Result<Vec<String>, String> {
        let targets = targets(&read(text.as_bytes())?, ("__meta_from", "here"))?;
        Ok(targets.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn groups_become_targets() {
        let here = |labels: &str| format!("{{{labels}}}").replace("$", "__meta_from=\"here\"");
        let cases: &[(Read, &str, &[&str])] = &[
            (
                from_json,
                r#"[{"targets": ["a:1", "b:2"], "labels": {"job": "x"}}, {"targets": ["c"]}]"#,
                &[r#"__address__="a:1", $, job="x""#, r#"__address__="b:2", $, job="x""#, r#"__address__="c", $"#],
            ),
            (from_json, "[]", &[]),
            (from_json, "null", &[]),
            (from_json, r#"[{}, {"targets": null, "labels": null}]"#, &[]),
            (from_json, r#"[{"Targets": ["a"], "LABELS": {"Job": null}}]"#, &[r#"Job="", __address__="a", $"#]),
            // A group cannot say where it comes from, nor what the address is.
            (
                from_json,
                r#"[{"targets": ["a"], "labels": {"__meta_from": "x", "__address__": "y", "b": "1", "b": "2"}}]"#,
                &[r#"__address__="a", $, b="2""#],
            ),
            (
                from_yaml,
                "- targets:\n  - 127.0.0.1:9999\n  - 'b'\n  labels:\n    version: 1.10\n    on: 010\n    t: true\n    n: ~\n",
                &[
                    r#"__address__="127.0.0.1:9999", $, n="", on="010", t="true", version="1.10""#,
                    r#"__address__="b", $, n="", on="010", t="true", version="1.10""#,
                ],
            ),
            (from_yaml, "", &[]),
            (from_yaml, "# nothing\n", &[]),
            (from_yaml, "---\n[]\n---\n[{targets: [a]}]", &[]),
            (from_yaml, "- targets:\n  labels:\n", &[]),
            (
                from_yaml,
                "- &g\n  targets: [a]\n  labels: &l {x: '1', y: '2'}\n- *g\n- targets: [b]\n  labels:\n    <<: *l\n    y: z\n",
                &[
                    r#"__address__="a", $, x="1", y="2""#,
                    r#"__address__="a", $, x="1", y="2""#,
                    r#"__address__="b", $, x="1", y="z""#,
                ],
            ),
            (from_yaml, r#"[{"targets": ["a"], "labels": {"b": "null"}}]"#, &[r#"__address__="a", $, b="null""#]),
        ];
        for (read, text, expected) in cases {
            let expected: Vec<String> = expected.iter().map(|labels| here(labels)).collect();
            assert_eq!(shown(*read, text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_of_groups_is_refused() {
        let cases: &[(Read, &str, &str)] = &[
            (from_json, "", "EOF while parsing"),
            (from_json, "{}", "invalid type: map, expected a sequence"),
            (from_json, "[null]", "nil target group item found"),
            (from_json, r#"[{"targets": "a"}]"#, "invalid type: string"),
            (from_json, r#"[{"targets": [1]}]"#, "invalid type: integer"),
            (from_json, r#"[{"labels": {"a": 1}}]"#, "invalid type: integer"),
            (from_json, r#"[{"targets": ["a"], "port": 1}]"#, "unknown field \"port\""),
            (from_json, r#"[{"labels": {"": "x"}}]"#, "\"\" is not a valid label name"),
            (from_json, "[] []", "trailing characters"),
            (from_yaml, "a: b", "yaml: cannot unmarshal a mapping into a list of groups"),
            (from_yaml, "- ~", "nil target group item found"),
            (from_yaml, "- x", "yaml: cannot unmarshal a scalar into a group of targets"),
            (from_yaml, "- targets: a", "yaml: cannot unmarshal a scalar into targets"),
            (from_yaml, "- targets: [[a]]", "yaml: cannot unmarshal a sequence into a string"),
            (from_yaml, "- port: 1", "yaml: field port not found in a group of targets"),
            (from_yaml, "- targets: [a]\n  targets: [b]", "yaml: line 2: key \"targets\" already set in map"),
            (from_yaml, "- targets: [a", "yaml: line "),
            (from_yaml, "- &a [*a]", "yaml: anchor value contains itself"),
            (from_yaml, "- <<: 1", "yaml: map merge requires map or sequence of maps as the value"),
            (from_yaml, "- labels: {'': x}", "\"\" is not a valid label name"),
            (from_yaml, &"[".repeat(100), "yaml: exceeded max depth of 16"),
        ];
        for (read, text, error) in cases {
            let refused = shown(*read, text).unwrap_err();
            assert!(refused.contains(error), "{text}: {refused}");
        }
    }

    #[test]
    fn there_is_a_limit_of_targets_that_aliases_do_not_get_around() {
        let items = vec!["a"; 1_001].join(", ");
        let text = format!("- &g {{targets: [{items}]}}\n{}", "- *g\n".repeat(1_000));
        let refused = shown(from_yaml, &text).unwrap_err();
        assert_eq!(refused, "1002001 targets are more than the limit of 1000000");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_in_json_and_refused_in_yaml() {
        let groups = from_json(b"[{\"targets\": [\"\xff\"]}]").unwrap();
        assert_eq!(groups[0].addresses, ["\u{fffd}"]);
        assert_eq!(from_yaml(b"- targets: [\xff]"), Err("yaml: invalid UTF-8".to_owned()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = from_json(&bytes);
            let _ = from_yaml(&bytes);
        }

        #[test]
        fn any_yaml_is_read_or_refused(text in "[-:a-c\\[\\]{},'\"&*<~ \n]{0,40}") {
            let _ = from_yaml(text.as_bytes());
        }

        /// JSON is YAML, and both readers agree about what both take.
        #[test]
        fn the_formats_agree(
            groups in proptest::collection::vec(
                (
                    proptest::collection::vec("[a-z0-9.:]{1,8}", 0..4),
                    proptest::collection::btree_map("[a-z_]{1,6}", "[ -~]{0,8}", 0..4),
                ),
                0..4,
            ),
        ) {
            let list: Vec<_> = groups
                .iter()
                .map(|(targets, labels)| serde_json::json!({ "targets": targets, "labels": labels }))
                .collect();
            let text = serde_json::to_vec(&list).unwrap();
            let expected: Vec<Group> = groups
                .into_iter()
                .map(|(addresses, labels)| Group { addresses, labels })
                .collect();
            prop_assert_eq!(from_json(&text), Ok(expected.clone()));
            prop_assert_eq!(from_yaml(&text), Ok(expected));
        }
    }
}
