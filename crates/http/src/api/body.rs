//! Bodies, as arguments, exports and inner states are, in the form of the API.

use corten_component::SecretBook;
use corten_component::secrets::is_secret_name;
use corten_config::encode::Item;
use corten_config::value::{Data, MASK, Object, Value};
use corten_syntax::quote;
use serde_json::{Value as Json, json};

/// The most attributes, blocks and values of one body that are shown. A scrape may have 100,000 targets, which have a page
/// of their own.
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
    Writer { left: PARTS_MAX, book }.items(&items)
}

/// Masks what it writes, rather than all before: it may write but a part.
struct Writer<'b> {
    left: usize,
    book: &'b SecretBook,
}

impl Writer<'_> {
    fn spend(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }

    fn items(&mut self, items: &[Item]) -> Json {
        let mut list = Vec::new();
        for item in items {
            if !self.spend() {
                let value = json!({ "type": "string", "value": "more is not shown" });
                list.push(json!({ "name": "…", "type": "attr", "value": value }));
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
        self.book.without_secrets(text, named).unwrap_or_else(|| text.to_owned())
    }

    fn value(&mut self, value: &Value, named: bool) -> Json {
        let of = |ty: &str, value: Json| json!({ "type": ty, "value": value });
        if value.is_masked() || !self.spend() {
            return of("capsule", MASK.into());
        }
        match &value.data {
            Data::Null => json!({ "type": "null" }),
            Data::Bool(value) => of("bool", (*value).into()),
            // As text, which every number fits into.
            Data::Number(number) => of("number", number.to_string().into()),
            Data::String(text) => of("string", self.text(text, named).into()),
            Data::Bytes(_) | Data::Array(_) => {
                let items: Vec<Json> = value.items().map(|item| self.value(&item, named)).collect();
                of("array", items.into())
            }
            Data::Object(fields) => of("object", self.object(fields, named)),
            Data::Function(_) => of("function", value.describe().into()),
            Data::Secret(_) => of("capsule", MASK.into()),
            Data::OptionalSecret(secret) => of("capsule", quote(&self.text(&secret.text, named)).into()),
            Data::Capsule(capsule) => match capsule.as_object() {
                Some(fields) => of("object", self.object(&fields, named)),
                None => {
                    let text = capsule.as_text().filter(|text| !text.is_empty()).unwrap_or_else(|| value.describe());
                    of("capsule", text.into())
                }
            },
        }
    }

    fn object(&mut self, fields: &Object, named: bool) -> Json {
        let field = |(name, value): (&std::sync::Arc<str>, &Value)| json!({ "key": &**name, "value": self.value(value, named || is_secret_name(name)) });
        fields.iter().map(field).collect()
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
    fn a_body_without_end_is_cut() {
        let attr = |index: usize| Item::Attr { name: format!("a{index}"), value: Value::int(1) };
        let shown = body((0..2 * PARTS_MAX).map(attr).collect(), &SecretBook::default());
        assert!(shown.as_array().is_some_and(|list| list.len() <= PARTS_MAX));
    }
}
