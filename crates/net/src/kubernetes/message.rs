//! What the API says: lists of objects, events of a watch, and why it refuses.

use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::ApiError;

/// The longest version: it has to stand in the URL of the next request. Those of Kubernetes are numbers.
const VERSION_BYTES_MAX: usize = 256;

/// Makes of an object what is kept of it.
pub(super) type Read<T> = dyn Fn(&Value) -> T + Send + Sync;

/// A page of a list.
#[derive(Debug, PartialEq)]
pub(super) struct Page<T> {
    /// What is kept of its objects, by their names.
    pub(super) items: Vec<(String, T)>,
    /// The version of the whole list.
    pub(super) version: String,
    /// What asks for the next page; empty on the last.
    pub(super) next: String,
}

impl<T> Page<T> {
    /// Reads a page. Of its objects never more than one is held as a whole.
    pub(super) fn parse(body: &[u8], read: &Read<T>, objects_max: usize) -> Result<Self, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let page = PageSeed { read, objects_max }.deserialize(&mut json)?;
        json.end()?;
        Ok(page)
    }
}

struct PageSeed<'a, T> {
    read: &'a Read<T>,
    objects_max: usize,
}

impl<'de, T> DeserializeSeed<'de> for PageSeed<'_, T> {
    type Value = Page<T>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Page<T>, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, T> Visitor<'de> for PageSeed<'_, T> {
    type Value = Page<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Page<T>, A::Error> {
        let mut page = Page { items: Vec::new(), version: String::new(), next: String::new() };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => {
                    let metadata: Value = map.next_value()?;
                    page.version =
                        version(&metadata).map_err(|why| A::Error::custom(format_args!("the list {why}")))?;
                    page.next = text(&metadata, "continue").to_owned();
                }
                "items" => {
                    page.items = map.next_value_seed(ItemsSeed { read: self.read, objects_max: self.objects_max })?
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if page.version.is_empty() {
            return Err(A::Error::custom("the list has no version"));
        }
        Ok(page)
    }
}

struct ItemsSeed<'a, T> {
    read: &'a Read<T>,
    objects_max: usize,
}

impl<'de, T> DeserializeSeed<'de> for ItemsSeed<'_, T> {
    type Value = Vec<(String, T)>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, T> Visitor<'de> for ItemsSeed<'_, T> {
    type Value = Vec<(String, T)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects")
    }

    /// An empty list may be written so.
    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(object) = sequence.next_element::<Value>()? {
            if items.len() >= self.objects_max {
                return Err(A::Error::custom(format_args!("there are more than {} objects", self.objects_max)));
            }
            let name = name(&object).ok_or_else(|| A::Error::custom("an object has no name"))?;
            items.push((name, (self.read)(&object)));
        }
        Ok(items)
    }
}

/// An event of a watch.
#[derive(Debug, PartialEq)]
pub(super) enum Event<T> {
    /// An object is new, or another than before.
    Is {
        name: String,
        version: String,
        kept: T,
    },
    Gone {
        name: String,
        version: String,
    },
    /// Nothing has changed up to this version.
    Bookmark {
        version: String,
    },
    /// The watch ends.
    Failed(ApiError),
}

impl<T> Event<T> {
    /// Reads an event; the error says what is wrong with it.
    pub(super) fn parse(line: &[u8], read: &Read<T>) -> Result<Self, String> {
        let event: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let object = event.get("object").ok_or("an event has no object")?;
        let metadata = object.get("metadata").unwrap_or(&Value::Null);
        let version = || version(metadata).map_err(|why| format!("an object {why}"));
        let name = || name(object).ok_or("an object has no name");
        Ok(match text(&event, "type") {
            "ADDED" | "MODIFIED" => Event::Is { name: name()?, version: version()?, kept: read(object) },
            "DELETED" => Event::Gone { name: name()?, version: version()? },
            "BOOKMARK" => Event::Bookmark { version: version()? },
            "ERROR" => Event::Failed(ApiError::of_status(0, object, None)),
            other => return Err(format!("there are no events of type {:?}", shortened(other))),
        })
    }
}

impl ApiError {
    /// Why the API refuses, by what it says. A code of zero is not known.
    pub(super) fn of_status(code: u16, status: &Value, after: Option<Duration>) -> Self {
        let said = status.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        let code = if code == 0 { said.unwrap_or_default() } else { code };
        let reason = text(status, "reason");
        let details = status.get("details").unwrap_or(&Value::Null);
        let causes = details.get("causes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let is_too_new = causes.iter().any(|cause| text(cause, "reason") == "ResourceVersionTooLarge");
        let seconds = details.get("retryAfterSeconds").and_then(Value::as_u64).filter(|seconds| *seconds > 0);
        let name = http::StatusCode::from_u16(code).map_or_else(|_| "refused".to_owned(), |status| status.to_string());
        let message = shortened(text(status, "message"));
        ApiError {
            text: if message.is_empty() { name } else { format!("{name}: {message}") },
            code,
            is_expired: code == 410 || matches!(reason, "Expired" | "Gone") || is_too_new,
            after: after.or(seconds.map(Duration::from_secs)),
        }
    }
}

/// The version that metadata say; the error says what is wrong with it.
fn version(metadata: &Value) -> Result<String, &'static str> {
    match text(metadata, "resourceVersion") {
        "" => Err("has no version"),
        version if version.len() > VERSION_BYTES_MAX => Err("has a version that is too long"),
        version => Ok(version.to_owned()),
    }
}

/// The name of an object, with its namespace where it has one.
fn name(object: &Value) -> Option<String> {
    let metadata = object.get("metadata")?;
    match (text(metadata, "namespace"), text(metadata, "name")) {
        (_, "") => None,
        ("", name) => Some(name.to_owned()),
        (namespace, name) => Some(format!("{namespace}/{name}")),
    }
}

fn text<'a>(json: &'a Value, name: &str) -> &'a str {
    json.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A text of the server on one line, of limited length.
pub(super) fn shortened(text: &str) -> String {
    crate::cloud::shown(text, &[])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn named(object: &Value) -> String {
        text(object, "x").to_owned()
    }

    fn page(body: &str) -> Result<Page<String>, String> {
        Page::parse(body.as_bytes(), &named, 2).map_err(|error| error.to_string())
    }

    #[test]
    fn a_page_is_read_whatever_the_order_of_its_parts() {
        let object = |name: &str| json!({"x": name, "metadata": {"namespace": "n", "name": name}});
        let whole =
            json!({"kind": "List", "metadata": {"resourceVersion": "7", "continue": "c"}, "items": [object("a")]});
        let wanted = Page { items: vec![("n/a".into(), "a".into())], version: "7".into(), next: "c".into() };
        assert_eq!(page(&whole.to_string()), Ok(wanted));
        let turned = r#"{"items":[{"metadata":{"name":"b"}}],"metadata":{"resourceVersion":"8"}}"#;
        let wanted = Page { items: vec![("b".into(), "".into())], version: "8".into(), next: "".into() };
        assert_eq!(page(turned), Ok(wanted));
        let empty = Page { items: vec![], version: "9".into(), next: "".into() };
        assert_eq!(page(r#"{"metadata":{"resourceVersion":"9"},"items":null}"#), Ok(empty));
        let many = json!({"metadata": {"resourceVersion": "7"}, "items": [object("a"), object("b"), object("c")]});
        assert!(page(&many.to_string()).unwrap_err().starts_with("there are more than 2 objects"));
        for (body, wrong) in [
            ("{}", "the list has no version"),
            (r#"{"metadata":{"resourceVersion":"9"},"items":[{}]}"#, "an object has no name"),
            (r#"{"metadata":{"resourceVersion":"9"},"items":[]}{"#, "trailing characters"),
            (r#"{"metadata":{"resourceVersion":"9"},"items":3}"#, "invalid type"),
            ("[]", "invalid type"),
            ("", "EOF"),
        ] {
            let error = page(body).unwrap_err();
            assert!(error.contains(wrong), "{body}: {error}");
        }
    }

    #[test]
    fn events_say_what_has_changed() {
        let event = |kind: &str, object: Value| {
            Event::parse(json!({"type": kind, "object": object}).to_string().as_bytes(), &named)
        };
        let object = json!({"x": "k", "metadata": {"namespace": "n", "name": "a", "resourceVersion": "5"}});
        let (name, version) = (|| "n/a".to_owned(), || "5".to_owned());
        for kind in ["ADDED", "MODIFIED"] {
            let is = Event::Is { name: name(), version: version(), kept: "k".to_owned() };
            assert_eq!(event(kind, object.clone()), Ok(is));
        }
        assert_eq!(event("DELETED", object.clone()), Ok(Event::Gone { name: name(), version: version() }));
        let bookmark = json!({"metadata": {"resourceVersion": "5"}});
        assert_eq!(event("BOOKMARK", bookmark), Ok(Event::Bookmark { version: version() }));
        assert_eq!(event("OTHER", object), Err("there are no events of type \"OTHER\"".to_owned()));
        assert_eq!(event("ADDED", json!({"metadata": {"name": "a"}})), Err("an object has no version".to_owned()));
        assert_eq!(event("ADDED", json!({})), Err("an object has no name".to_owned()));
        let metadata = json!({"name": "a", "resourceVersion": "1".repeat(VERSION_BYTES_MAX + 1)});
        let long = "has a version that is too long".to_owned();
        assert_eq!(event("ADDED", json!({"metadata": metadata})), Err(format!("an object {long}")));
        let error = Page::parse(json!({"metadata": metadata}).to_string().as_bytes(), &named, 3).unwrap_err();
        assert!(error.to_string().starts_with(&format!("the list {long}")), "{error}");
        assert_eq!(Event::parse(b"{}", &named), Err("an event has no object".to_owned()));
    }

    #[test]
    fn what_the_api_says_is_the_error() {
        for (code, status, text, is_expired, after) in [
            (403, json!({"message": "no\nway", "code": 403}), "403 Forbidden: no way", false, None),
            (
                0,
                json!({"message": "too old resource version: 1 (2)", "code": 410, "reason": "Expired"}),
                "410 Gone: too old resource version: 1 (2)",
                true,
                None,
            ),
            (
                0,
                json!({"code": 504, "details": {"causes": [{"reason": "ResourceVersionTooLarge"}], "retryAfterSeconds": 1}}),
                "504 Gateway Timeout",
                true,
                Some(1),
            ),
            (0, json!({"code": 99999}), "refused", false, None),
            (0, json!("x"), "refused", false, None),
        ] {
            let error = ApiError::of_status(code, &status, None);
            assert_eq!((error.to_string().as_str(), error.is_expired), (text, is_expired));
            assert_eq!(error.after, after.map(Duration::from_secs));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in any::<Vec<u8>>(),
            text in r#"(\{|\}|\[|\]|:|,|"type"|"object"|"items"|"metadata"|"name"|"ADDED"|"ERROR"|"code"|[0-9]{1,9}| ){0,40}"#,
        ) {
            for bytes in [&bytes[..], text.as_bytes()] {
                let _ = Page::parse(bytes, &named, 3);
                let _ = Event::parse(bytes, &named);
                if let Ok(json) = serde_json::from_slice(bytes) {
                    ApiError::of_status(0, &json, None);
                }
            }
        }

        #[test]
        fn any_object_of_an_event_is_read_or_refused(
            kind in prop_oneof![Just("ADDED"), Just("DELETED"), Just("BOOKMARK"), Just("ERROR")],
            name in ".{0,10}", version in ".{0,10}", code in any::<i64>(),
        ) {
            let object = json!({"metadata": {"name": name, "resourceVersion": version}, "code": code});
            let event = json!({"type": kind, "object": object}).to_string();
            let _ = Event::parse(event.as_bytes(), &named);
        }
    }
}
