//! Targets: what discovery finds and scrapers scrape, as values of the configuration language.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use corten_config::decode::CapsuleType;
use corten_config::error::ValueError;
use corten_config::schema::CapsuleInfo;
use corten_config::value::{Capsule, Data, MASK, Number, Object, SECRET_TYPE, Value};
use corten_config::{stdlib, value};
use xxhash_rust::xxh3::xxh3_64;
use xxhash_rust::xxh64::Xxh64;

use crate::labels::{ENCODED_BYTES_MAX, LabelError, Labels, LabelsBuilder, LabelsIter, put_varint, varint_len};

/// What the names of labels begin with that only discovery knows: they do not decide who scrapes a target.
pub const META_PREFIX: &str = "__meta_";

/// An immutable set of labels. A copy costs a counter; two are compared by their hashes first.
///
/// Unlike a series, a target may have a label with an empty value, as the user wrote it. Rules and scrapers take it
/// for absent.
#[derive(Clone)]
pub struct Target {
    hash: u64,
    sensitive: bool,
    // As `Labels` reads it, with labels without a value.
    encoded: Arc<[u8]>,
}

impl Target {
    /// A target with these labels. Of several labels of one name the last counts.
    ///
    /// # Errors
    ///
    /// A set that is too long.
    pub fn new<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, LabelError> {
        let mut labels: Vec<_> = labels.into_iter().collect();
        // The sort is stable, so that of several labels of one name the last stands last.
        labels.sort_by(|a, b| a.0.cmp(b.0));
        let mut encoded = Vec::new();
        for (place, (name, value)) in labels.iter().enumerate() {
            if labels.get(place + 1).is_none_or(|next| next.0 != *name) {
                put_label(&mut encoded, name, value);
            }
            if encoded.len() > ENCODED_BYTES_MAX {
                return Err(LabelError::TooLong(encoded.len()));
            }
        }
        Ok(Target::from_encoded(&encoded, false))
    }

    fn from_encoded(encoded: &[u8], sensitive: bool) -> Self {
        Target { hash: xxh3_64(encoded), sensitive, encoded: encoded.into() }
    }

    /// The labels, sorted by name.
    pub fn labels(&self) -> Labels<'_> {
        Labels::from_encoded(&self.encoded)
    }

    /// The labels as (name, value), sorted by name.
    pub fn iter(&self) -> LabelsIter<'_> {
        self.labels().iter()
    }

    /// The value of a label, if the target has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.labels().get(name)
    }

    /// How many labels there are. Counts them.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// Whether a secret went into a label, so that no value may be shown.
    pub fn is_sensitive(&self) -> bool {
        self.sensitive
    }

    /// A hash of all labels, for use within this process.
    pub fn hash64(&self) -> u64 {
        self.hash
    }

    /// The hash by which the members of a cluster agree on who scrapes a target: of all labels but `__meta_*`. Frozen:
    /// members of different versions have to agree.
    pub fn non_meta_hash(&self) -> u64 {
        self.hash_where(|name| !name.starts_with(META_PREFIX))
    }

    /// As [`non_meta_hash`](Self::non_meta_hash), of the labels whose names are chosen: XXH64 over name, 0xff, value,
    /// 0xff of each in the order of their names.
    pub fn hash_where(&self, chosen: impl Fn(&str) -> bool) -> u64 {
        let mut hash = Xxh64::new(0);
        for (name, value) in self.iter().filter(|(name, _)| chosen(name)) {
            hash.update(name.as_bytes());
            hash.update(b"\xff");
            hash.update(value.as_bytes());
            hash.update(b"\xff");
        }
        hash.digest()
    }

    /// A target of a value of the configuration language: of an object, or of whatever presents itself as one.
    ///
    /// Strings are taken as they are and other scalars as they are printed.
    ///
    /// # Errors
    ///
    /// What is no object, and what holds a secret or something without a text. The texts are the reference's, and the
    /// whole object is at fault.
    pub fn from_value(value: &Value) -> Result<Self, ValueError> {
        if let Some(target) = value.as_capsule().and_then(|capsule| capsule.as_any().downcast_ref::<Target>()) {
            return Ok(Target { sensitive: target.sensitive || value.sensitive, ..target.clone() });
        }
        let fail = |what: &str| ValueError::new(value, format!("target::ConvertFrom: {what}"));
        let Some(fields) = value.to_object() else {
            return Err(fail(&format!("conversion from '{}' is not supported", go_type(value))));
        };
        let texts = fields.values().map(|field| label_value(field).map_err(|what| fail(&what)));
        let texts = texts.collect::<Result<Vec<Arc<str>>, _>>()?;
        let labels = fields.keys().zip(&texts).map(|(name, text)| (&**name, &**text));
        let target = Target::new(labels).map_err(|error| fail(&error.to_string()))?;
        let sensitive = value.sensitive || fields.values().any(|field| field.sensitive);
        Ok(Target { sensitive, ..target })
    }
}

/// The text of a field of an object as the value of a label, or what is wrong with it.
fn label_value(field: &Value) -> Result<Arc<str>, String> {
    match &field.data {
        Data::String(text) => Ok(Arc::clone(text)),
        Data::Bool(true) => Ok("true".into()),
        Data::Bool(false) => Ok("false".into()),
        Data::Number(Number::Int(number)) => Ok(number.to_string().into()),
        Data::Number(Number::Uint(number)) => Ok(number.to_string().into()),
        Data::Number(Number::Float(_)) => Ok(print(field).into()),
        Data::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err("cannot use bytes that are no UTF-8 as a target value".to_owned()),
        },
        Data::OptionalSecret(value::OptionalSecret { text, is_secret: false }) => Ok(Arc::clone(text)),
        Data::OptionalSecret(_) | Data::Secret(_) => Err("cannot use a secret as a target value".to_owned()),
        Data::Null => Err("cannot convert a nil value to a target value".to_owned()),
        Data::Array(_) | Data::Object(_) | Data::Function(_) | Data::Capsule(_) => {
            Err(format!("cannot use a value of type {} as a target value", field.describe()))
        }
    }
}

/// A value as Go's `%v` prints it.
fn print(value: &Value) -> String {
    let format = stdlib::function("string.format");
    let printed = format.and_then(|format| format.invoke(&[Value::string("%v"), value.clone()]).ok());
    printed.as_ref().and_then(Value::as_str).unwrap_or("").to_owned()
}

/// The Go type that the reference names when a value is no target.
fn go_type(value: &Value) -> &'static str {
    match &value.data {
        Data::Null => "<nil>",
        Data::Bool(_) => "bool",
        Data::Number(Number::Int(_)) => "int64",
        Data::Number(Number::Uint(_)) => "uint64",
        Data::Number(Number::Float(_)) => "float64",
        Data::String(_) => "string",
        Data::Bytes(_) => "[]uint8",
        Data::Array(_) => "[]value.Value",
        Data::Object(_) => "map[string]value.Value",
        Data::Function(_) => "func",
        Data::Secret(_) => SECRET_TYPE,
        Data::OptionalSecret(_) => value::OPTIONAL_SECRET_TYPE,
        Data::Capsule(capsule) => capsule.type_name(),
    }
}

fn put_label(out: &mut Vec<u8>, name: &str, value: &str) {
    let (name, value) = (name.as_bytes(), value.as_bytes());
    let body = 2 + varint_len(name.len() as u64) + name.len() + varint_len(value.len() as u64) + value.len();
    out.push(0x0a);
    put_varint(out, body as u64);
    for (tag, bytes) in [(0x0a, name), (0x12, value)] {
        out.push(tag);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

impl Default for Target {
    fn default() -> Self {
        /// Shared, because empty targets stand in for what is not there yet.
        static EMPTY: LazyLock<Target> = LazyLock::new(|| Target::from_encoded(&[], false));
        EMPTY.clone()
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.sensitive == other.sensitive
            && (Arc::ptr_eq(&self.encoded, &other.encoded) || self.encoded == other.encoded)
    }
}

impl Eq for Target {}

impl Hash for Target {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Prints `{a="b", c="d"}`, as the labels of a series are printed, without the values if they hold a secret.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.sensitive {
            return self.labels().fmt(f);
        }
        f.write_str("{")?;
        for (place, (name, _)) in self.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={MASK}")?;
        }
        f.write_str("}")
    }
}

impl Capsule for Target {
    fn type_name(&self) -> &'static str {
        Self::INFO.type_name
    }

    fn equals(&self, other: &dyn Capsule) -> bool {
        other.as_any().downcast_ref::<Self>() == Some(self)
    }

    fn as_object(&self) -> Option<Object> {
        let fields = self.iter().map(|(name, value)| (name.into(), Value::string(value).marked(self.sensitive)));
        Some(fields.collect())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl CapsuleType for Target {
    const INFO: &'static CapsuleInfo =
        &CapsuleInfo { type_name: "discovery.Target", shown: "map(string)", object_like: true, from: &[] };

    fn convert(value: &Value) -> Option<Result<Self, ValueError>> {
        Some(Target::from_value(value))
    }

    fn null() -> Option<Self> {
        Some(Target::default())
    }
}

/// Makes targets, one after the other: it keeps its allocations.
#[derive(Debug, Default)]
pub struct TargetBuilder {
    labels: LabelsBuilder,
    sensitive: bool,
    encoded: Vec<u8>,
}

impl TargetBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all labels.
    pub fn clear(&mut self) {
        self.labels.clear();
        self.sensitive = false;
    }

    /// Takes over the labels of a target in place of those that were there. Labels without a value are left out.
    pub fn start_from(&mut self, target: &Target) {
        self.clear();
        self.sensitive = target.sensitive;
        for (name, value) in target.iter().filter(|(_, value)| !value.is_empty()) {
            self.labels.push(name, value);
        }
    }

    /// Sets all labels of a target; those without a value remove what is there.
    pub fn merge(&mut self, target: &Target) {
        self.sensitive |= target.sensitive;
        for (name, value) in target.iter() {
            self.labels.set(name, value);
        }
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        self.labels.set(name, value);
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) {
        self.labels.remove(name);
    }

    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.labels.get(name)
    }

    /// The labels, to have rules applied to them.
    pub fn labels_mut(&mut self) -> &mut LabelsBuilder {
        &mut self.labels
    }

    /// The target. The builder keeps its labels.
    ///
    /// # Errors
    ///
    /// A set that is too long, or a name that was pushed twice.
    pub fn build(&mut self) -> Result<Target, LabelError> {
        self.encoded.clear();
        self.labels.encode_into(&mut self.encoded)?;
        Ok(Target::from_encoded(&self.encoded, self.sensitive))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use corten_config::decode::{Decode, ValueContext};
    use corten_config::schema::Stability;
    use proptest::prelude::*;

    use super::*;
    use crate::relabel::{Action, NameScheme, RelabelScratch, Rule, Rules};

    fn target(labels: &[(&str, &str)]) -> Target {
        Target::new(labels.iter().copied()).unwrap()
    }

    fn object(fields: &[(&str, Value)]) -> Value {
        Value::object(fields.iter().map(|(name, value)| (Arc::from(*name), value.clone())).collect())
    }

    #[test]
    fn a_target_is_a_sorted_map_that_may_have_empty_values() {
        let target = target(&[("b", "2"), ("a", "1"), ("c", ""), ("a", "3")]);
        assert_eq!(target.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "2"), ("c", "")]);
        assert_eq!((target.get("c"), target.get("d"), target.len()), (Some(""), None, 3));
        assert_eq!(target.to_string(), r#"{a="3", b="2", c=""}"#);
        assert_eq!(format!("{target:?}"), target.to_string());
        assert!(Target::default().is_empty() && Target::default() == Target::new([]).unwrap());
    }

    #[test]
    fn a_set_that_is_too_long_is_refused() {
        let value = "x".repeat(ENCODED_BYTES_MAX);
        assert!(matches!(Target::new([("a", value.as_str())]), Err(LabelError::TooLong(_))));
    }

    /// Known values: the reference freezes them for its clusters.
    #[test]
    fn hashes_are_those_on_which_clusters_agree() {
        let names: Vec<(String, String)> = (0..10).map(|n| (format!("label_{n}"), format!("value_{n}"))).collect();
        let plain = Target::new(names.iter().map(|(name, value)| (name.as_str(), value.as_str()))).unwrap();
        assert_eq!(plain.hash_where(|_| true), 0xa281_5504_8ff3_0d6f);
        assert_eq!(plain.non_meta_hash(), 0xa281_5504_8ff3_0d6f);
        let chosen = target(&[("foo", "bar"), ("bin", "baz"), ("t0_l0", "0_0")]);
        assert_eq!(chosen.hash_where(|name| ["foo", "bin"].contains(&name)), 0xbbbe_4985_86b6_68f3);

        let word = |id: usize| -> String { (0..100).map(|i| char::from(b'a' + ((i + id) % 26) as u8)).collect() };
        let long = (0..100).map(|id| (word(id), word(id)));
        let meta = (0..5).map(|id| (format!("__meta_{}", word(id)), word(id)));
        let labels: Vec<(String, String)> = long.chain(meta).collect();
        let large = Target::new(labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))).unwrap();
        assert_eq!(large.non_meta_hash(), 0x3740_05f6_a622_f4d8);
        assert_eq!(large.hash_where(|_| true), 0x174c_789b_f3b7_83a7);
    }

    #[test]
    fn objects_become_targets() {
        let fields = object(&[
            ("string", Value::string("x")),
            ("int", Value::int(-1)),
            ("uint", Value::uint(u64::MAX)),
            ("float", Value::float(5.5)),
            ("large", Value::float(1e6)),
            ("bool", Value::bool(true)),
            ("bytes", Value::bytes(*b"abc")),
            ("optional", Value::optional_secret("open", false)),
            ("empty", Value::string("")),
        ]);
        let target = Target::from_value(&fields).unwrap();
        let expected = "{bool=\"true\", bytes=\"abc\", empty=\"\", float=\"5.5\", int=\"-1\", large=\"1e+06\", \
                        optional=\"open\", string=\"x\", uint=\"18446744073709551615\"}";
        assert_eq!(target.to_string(), expected);
    }

    #[test]
    fn what_has_no_text_is_no_label() {
        let secret = "target::ConvertFrom: cannot use a secret as a target value";
        let cases = [
            (object(&[("a", Value::secret("s"))]), secret),
            (object(&[("a", Value::optional_secret("s", true))]), secret),
            (object(&[("a", Value::NULL)]), "target::ConvertFrom: cannot convert a nil value to a target value"),
            (
                object(&[("a", Value::array(vec![]))]),
                "target::ConvertFrom: cannot use a value of type array as a target value",
            ),
            (Value::int(10), "target::ConvertFrom: conversion from 'int64' is not supported"),
            (Value::string("x"), "target::ConvertFrom: conversion from 'string' is not supported"),
            (Value::bool(true), "target::ConvertFrom: conversion from 'bool' is not supported"),
            (Value::secret("hunter2"), "target::ConvertFrom: conversion from 'alloytypes.Secret' is not supported"),
        ];
        for (value, expected) in cases {
            assert_eq!(Target::from_value(&value).unwrap_err().safe_message(), expected);
        }
    }

    #[test]
    fn a_target_is_read_like_an_object() {
        let cx = ValueContext { minimum: Stability::GenerallyAvailable, checking: false };
        let value = target(&[("a", "1"), ("__address__", "x:1")]).to_value();
        assert_eq!(value.describe(), "capsule(\"discovery.Target\")");
        assert_eq!(value.field("__address__"), Some(Value::string("x:1")));
        assert_eq!(value.field("b"), None);
        let map = BTreeMap::<String, String>::decode(&value, &cx).unwrap();
        assert_eq!(
            map,
            BTreeMap::from([("a".to_owned(), "1".to_owned()), ("__address__".to_owned(), "x:1".to_owned())])
        );
        assert_eq!(Target::decode(&value, &cx).unwrap(), target(&[("a", "1"), ("__address__", "x:1")]));
        assert_eq!(Target::decode_or_zero(&Value::NULL, &cx).unwrap(), Target::default());
        assert_eq!(Vec::<Target>::decode(&Value::array(vec![value.clone(), value]), &cx).unwrap().len(), 2);
    }

    #[test]
    fn what_was_made_of_a_secret_stays_hidden() {
        let marked = object(&[("a", Value::string("hidden").marked(true)), ("b", Value::string("x"))]);
        let hidden = Target::from_value(&marked).unwrap();
        assert_eq!(hidden.get("a"), Some("hidden"));
        assert!(hidden.to_value().field("a").is_some_and(|value| value.is_masked()));
        assert_eq!(hidden.to_string(), "{a=(secret), b=(secret)}");
        assert_ne!(hidden, target(&[("a", "hidden"), ("b", "x")]));
        let mut builder = TargetBuilder::new();
        builder.start_from(&hidden);
        builder.set("c", "1");
        assert!(builder.build().unwrap().is_sensitive());
        builder.start_from(&target(&[("a", "1")]));
        assert!(!builder.build().unwrap().is_sensitive());
    }

    #[test]
    fn a_builder_sets_and_removes_labels() {
        let mut builder = TargetBuilder::new();
        builder.start_from(&target(&[("hip", "hop"), ("boom", "bap"), ("tiki", "")]));
        assert_eq!((builder.get("hip"), builder.get("tiki")), (Some("hop"), None));
        builder.set("ka", "boom");
        builder.set("hip", "");
        builder.set("hip", "hip");
        builder.remove("boom");
        assert_eq!(builder.build().unwrap(), target(&[("hip", "hip"), ("ka", "boom")]));
        builder.merge(&target(&[("ka", ""), ("kung", "fu")]));
        assert_eq!(builder.build().unwrap(), target(&[("hip", "hip"), ("kung", "fu")]));
        builder.clear();
        assert_eq!(builder.build().unwrap(), Target::default());
    }

    #[test]
    fn rules_apply_to_targets() {
        let rules = [
            Rule { action: Action::LabelMap, regex: "__meta_(.+)".into(), ..Rule::default() },
            Rule { action: Action::Keep, source_labels: vec!["x".to_owned()], regex: ".+".into(), ..Rule::default() },
        ];
        let rules = Rules::new(&rules, NameScheme::Utf8).unwrap();
        let (mut builder, mut scratch) = (TargetBuilder::new(), RelabelScratch::new());
        builder.start_from(&target(&[("__meta_x", "1"), ("__meta_y", "")]));
        assert!(rules.apply(builder.labels_mut(), &mut scratch));
        assert_eq!(builder.build().unwrap(), target(&[("__meta_x", "1"), ("x", "1")]));
        builder.start_from(&target(&[("__meta_y", "1")]));
        assert!(!rules.apply(builder.labels_mut(), &mut scratch));
    }

    proptest! {
        #[test]
        fn a_target_holds_what_it_was_made_of(
            map in proptest::collection::btree_map("\\PC{0,4}", "\\PC{0,6}", 0..8),
            other in proptest::collection::btree_map("[ab]", "[12]", 0..3),
        ) {
            let made = |map: &BTreeMap<String, String>| {
                Target::new(map.iter().rev().map(|(name, value)| (name.as_str(), value.as_str()))).unwrap()
            };
            let target = made(&map);
            prop_assert!(target.iter().eq(map.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
            prop_assert_eq!(Target::from_value(&target.to_value()).unwrap(), target.clone());
            let object = Value::object(target.as_object().unwrap());
            prop_assert_eq!(Target::from_value(&object).unwrap(), target.clone());
            prop_assert_eq!(target == made(&other), map == other);
            let mut builder = TargetBuilder::new();
            builder.start_from(&target);
            let present = map.iter().filter(|(_, value)| !value.is_empty());
            let present: BTreeMap<String, String> = present.map(|(name, value)| (name.clone(), value.clone())).collect();
            prop_assert_eq!(builder.build().unwrap(), made(&present));
        }
    }
}
