//! Bodies, as arguments, exports and inner states are, in the form of the API.

use corten_component::SecretBook;
use corten_component::secrets::is_secret_name;
use corten_config::encode::Item;
use corten_config::value::{Data, MASK, Object, Value};
use corten_syntax::quote;
use serde_json::{Value as Json, json};

/// The most attributes, blocks, elements and fields of one body that are shown. A scrape may have 100,000 targets, which have
/// a page of their own.
const PARTS_MAX: usize = 20_000;

/// A body without its secrets.
pub(crate) fn mask_items(mut items: Vec<Item>, book: &SecretBook) -> Vec<Item> {
    book.mask_items(&mut items);
    items
}

/// What a component tells of itself, without secrets.
pub(crate) fn mask_debug_info(mut items: Vec<Item>, book: &SecretBook) -> Vec<Item> {
    book.mask_debug_info(&mut items);
    items
}

/// A body. What is secret is masked.
pub(super) fn body(items: Vec<Item>, book: &SecretBook) -> Json {
    Writer { left: PARTS_MAX, book, is_state: false }.items(&items)
}

/// As [`body`], of what a component tells of itself and of its data.
pub(super) fn state(items: Vec<Item>, book: &SecretBook) -> Json {
    Writer { left: PARTS_MAX, book, is_state: true }.items(&items)
}

/// Masks what it writes, rather than all before: it may write but a part.
struct Writer<'b> {
    left: usize,
    book: &'b SecretBook,
    /// Whether what is called like a secret within a text is masked, too.
    is_state: bool,
}

/// What stands in the place of so many parts.
fn more(left_out: usize) -> String {
    format!("{left_out} more {} not shown", if left_out == 1 { "is" } else { "are" })
}

fn of(ty: &str, value: impl Into<Json>) -> Json {
    json!({ "type": ty, "value": value.into() })
}

impl Writer<'_> {
    /// Whether there is room for one more part.
    fn spend(&mut self) -> bool {
        let has_room = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has_room
    }

    fn items(&mut self, items: &[Item]) -> Json {
        let mut list = Vec::new();
        for (at, item) in items.iter().enumerate() {
            if !self.spend() {
                list.push(json!({ "name": "…", "type": "attr", "value": of("string", more(items.len() - at)) }));
                break;
            }
            list.push(match item {
                Item::Attr { name, value } => {
                    json!({ "name": name, "type": "attr", "value": self.value(value, is_secret_name(name)) })
                }
                Item::Block { name, label, body } => {
                    let mut block = json!({ "name": name, "type": "block", "body": self.items(body) });
                    if let Some(label) = label.as_deref().filter(|label| !label.is_empty()) {
                        block["label"] = label.into();
                    }
                    block
                }
            });
        }
        Json::Array(list)
    }

    /// A text without its secrets; `named` as [`SecretBook::without_secrets`] has it.
    fn text(&self, text: &str, named: bool) -> String {
        let masked = match self.is_state {
            true => self.book.data_without_secrets(text, named),
            false => self.book.without_secrets(text, named),
        };
        masked.unwrap_or_else(|| text.to_owned())
    }

    fn value(&mut self, value: &Value, named: bool) -> Json {
        if value.is_masked() {
            return of("capsule", MASK);
        }
        match &value.data {
            Data::Null => json!({ "type": "null" }),
            Data::Bool(value) => of("bool", *value),
            // As text, which every number fits into.
            Data::Number(number) => of("number", number.to_string()),
            Data::String(text) => of("string", self.text(text, named)),
            Data::Bytes(_) | Data::Array(_) => of("array", self.array(value, named)),
            Data::Object(fields) => of("object", self.object(fields, named)),
            Data::Function(_) => of("function", value.describe()),
            Data::Secret(_) => of("capsule", MASK),
            Data::OptionalSecret(secret) => of("capsule", quote(&self.text(&secret.text, named))),
            Data::Capsule(capsule) => match capsule.as_object() {
                Some(fields) => of("object", self.object(&fields, named)),
                None => {
                    let text = capsule.as_text().filter(|text| !text.is_empty()).unwrap_or_else(|| value.describe());
                    of("capsule", text)
                }
            },
        }
    }

    fn array(&mut self, value: &Value, named: bool) -> Vec<Json> {
        let mut list = Vec::new();
        for (at, item) in value.items().enumerate() {
            if !self.spend() {
                list.push(of("capsule", more(value.len().unwrap_or_default() - at)));
                break;
            }
            list.push(self.value(&item, named));
        }
        list
    }

    fn object(&mut self, fields: &Object, named: bool) -> Vec<Json> {
        let mut list = Vec::new();
        for (at, (name, value)) in fields.iter().enumerate() {
            if !self.spend() {
                list.push(json!({ "key": "…", "value": of("capsule", more(fields.len() - at)) }));
                break;
            }
            list.push(json!({ "key": &**name, "value": self.value(value, named || is_secret_name(name)) }));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use corten_signal::target::Target;

    use super::*;

    #[test]
    fn bodies_are_shown_without_secrets() {
        let book = SecretBook::default();
        book.set([Arc::from("hush-hush")]);
        let attr = |name: &str, value: Value| Item::Attr { name: name.to_owned(), value };
        let labels = Target::new([("job", "of hush-hush"), ("password", "p")]).unwrap();
        let items = vec![
            attr("a", Value::string("said hush-hush")),
            attr("b", Value::secret("x")),
            attr("c", Value::int(7)),
            attr("d", Value::array([Value::bool(true), Value::NULL])),
            attr("f", Value::capsule(Arc::new(labels))),
            attr("token", Value::array([Value::string("x")])),
            Item::Block { name: "e".to_owned(), label: Some("l".to_owned()), body: Vec::new() },
        ];
        assert_eq!(
            body(items, &book),
            json!([
                {"name": "a", "type": "attr", "value": {"type": "string", "value": "said (secret)"}},
                {"name": "b", "type": "attr", "value": {"type": "capsule", "value": "(secret)"}},
                {"name": "c", "type": "attr", "value": {"type": "number", "value": "7"}},
                {"name": "d", "type": "attr", "value": {"type": "array", "value": [
                    {"type": "bool", "value": true}, {"type": "null"},
                ]}},
                {"name": "f", "type": "attr", "value": {"type": "object", "value": [
                    {"key": "job", "value": {"type": "string", "value": "of (secret)"}},
                    {"key": "password", "value": {"type": "string", "value": "(secret)"}},
                ]}},
                {"name": "token", "type": "attr", "value": {"type": "array", "value": [
                    {"type": "string", "value": "(secret)"},
                ]}},
                {"name": "e", "type": "block", "label": "l", "body": []},
            ])
        );
    }

    #[test]
    fn a_body_without_end_is_cut_and_says_so() {
        let book = SecretBook::default();
        let attr = |value: Value| Item::Attr { name: "a".to_owned(), value };
        let shown = body((0..2 * PARTS_MAX).map(|_| attr(Value::int(1))).collect(), &book);
        let list = shown.as_array().expect("a list");
        assert_eq!(list.len(), PARTS_MAX + 1);
        let more =
            json!({"name": "…", "type": "attr", "value": {"type": "string", "value": "20000 more are not shown"}});
        assert_eq!(list.last(), Some(&more));

        // What is within counts as well: the attribute is a part, and so are its elements.
        let ones = || Value::array(vec![Value::int(1); 2 * PARTS_MAX]);
        let shown = body(vec![attr(ones())], &book);
        let list = shown[0]["value"]["value"].as_array().expect("a list");
        assert_eq!(list.len(), PARTS_MAX);
        assert_eq!(list.last(), Some(&json!({"type": "capsule", "value": "20001 more are not shown"})));

        let fields: Object = (0..PARTS_MAX).map(|at| (at.to_string().into(), Value::int(1))).collect();
        let shown = body(vec![attr(Value::new(Data::Object(Arc::new(fields)))), attr(ones())], &book);
        let list = shown[0]["value"]["value"].as_array().expect("a list");
        assert_eq!(
            list.last(),
            Some(&json!({"key": "…", "value": {"type": "capsule", "value": "1 more is not shown"}}))
        );
        assert_eq!(
            shown[1],
            json!({"name": "…", "type": "attr", "value": {"type": "string", "value": "1 more is not shown"}})
        );

        // There is room for all of this.
        let ones = Value::array(vec![Value::int(1); PARTS_MAX - 1]);
        let shown = body(vec![attr(ones)], &book);
        assert_eq!(shown[0]["value"]["value"].as_array().map(Vec::len), Some(PARTS_MAX - 1));
        assert!(!shown.to_string().contains("not shown"));
    }

    #[test]
    fn what_a_component_tells_of_its_data_is_masked_by_the_names_in_it() {
        let said = || Value::string("{job=\"a\", token=\"hush\"}");
        let items = || vec![Item::Attr { name: "labels".to_owned(), value: Value::array([said()]) }];
        assert!(!state(items(), &SecretBook::default()).to_string().contains("hush"));
        // In a configuration that would mask references.
        assert!(body(items(), &SecretBook::default()).to_string().contains("hush"));
    }
}
