//! Fields: places in an entry, `attributes["a.b"].c`.

use std::fmt;

use crate::entry::Entry;
use crate::value::{Map, Text, Value};

/// What a field begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// The body.
    Body,
    /// The attributes.
    Attributes,
    /// The attributes of the resource.
    Resource,
}

/// A place in an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    root: Root,
    keys: Box<[Text]>,
}

/// Why a text is no field, in the reference's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError(&'static str);

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for FieldError {}

impl Field {
    /// The body as a whole.
    pub fn body() -> Self {
        Field { root: Root::Body, keys: Box::default() }
    }

    /// All attributes, or all of the resource.
    pub fn whole(root: Root) -> Self {
        Field { root, keys: Box::default() }
    }

    /// A key of the body.
    pub fn of_body(key: &'static str) -> Self {
        Field { root: Root::Body, keys: Box::new([Text::of(key)]) }
    }

    /// An attribute.
    pub fn attribute(key: impl Into<Text>) -> Self {
        Field { root: Root::Attributes, keys: Box::new([key.into()]) }
    }

    /// An attribute of the resource.
    pub fn resource(key: impl Into<Text>) -> Self {
        Field { root: Root::Resource, keys: Box::new([key.into()]) }
    }

    /// Reads a field. Attributes and resource as a whole are one only where `rootable` says so.
    ///
    /// # Errors
    ///
    /// Why the text is no field.
    pub fn parse(text: &str, rootable: bool) -> Result<Self, FieldError> {
        let mut keys = split(text)?.into_iter();
        let root = match keys.next().as_deref() {
            Some("body") => Root::Body,
            Some("attributes") => Root::Attributes,
            Some("resource") => Root::Resource,
            _ => return Err(FieldError("unrecognized prefix")),
        };
        let keys: Box<[Text]> = keys.map(Text::from).collect();
        if keys.is_empty() && !rootable {
            match root {
                Root::Attributes => return Err(FieldError("attributes cannot be referenced without subfield")),
                Root::Resource => return Err(FieldError("resource cannot be referenced without subfield")),
                Root::Body => {}
            }
        }
        Ok(Field { root, keys })
    }

    /// What it begins with.
    pub fn root(&self) -> Root {
        self.root
    }

    /// Whether it is the body, or all attributes.
    pub fn is_whole(&self) -> bool {
        self.keys.is_empty()
    }

    /// The field that this one is in.
    #[must_use]
    pub(crate) fn parent(&self) -> Self {
        let keys = &self.keys[..self.keys.len().saturating_sub(1)];
        Field { root: self.root, keys: keys.into() }
    }

    /// A field in this one.
    #[must_use]
    pub(crate) fn child(&self, key: Text) -> Self {
        Field { root: self.root, keys: self.keys.iter().cloned().chain([key]).collect() }
    }

    fn of<'a>(&self, entry: &'a Entry) -> &'a Value {
        match self.root {
            Root::Body => &entry.body,
            Root::Attributes => &entry.attributes,
            Root::Resource => &entry.resource,
        }
    }

    fn of_mut<'a>(&self, entry: &'a mut Entry) -> &'a mut Value {
        match self.root {
            Root::Body => &mut entry.body,
            Root::Attributes => &mut entry.attributes,
            Root::Resource => &mut entry.resource,
        }
    }

    /// What stands there.
    pub fn get<'a>(&self, entry: &'a Entry) -> Option<&'a Value> {
        self.keys.iter().try_fold(self.of(entry), |value, key| value.as_map()?.get(key))
    }

    /// Puts a value there. A map is merged into what is there; what stands in the way gives way.
    ///
    /// # Errors
    ///
    /// Attributes as a whole can only be a map.
    pub fn set(&self, entry: &mut Entry, value: Value) -> Result<(), &'static str> {
        if let Value::Map(map) = value {
            self.merge(entry, map);
            return Ok(());
        }
        let root = self.of_mut(entry);
        let Some((last, way)) = self.keys.split_last() else {
            match self.root {
                Root::Body => *root = value,
                Root::Attributes => return Err("cannot set attributes root"),
                Root::Resource => return Err("cannot set resource root"),
            }
            return Ok(());
        };
        way.iter().fold(root.map_mut(), within).put(last.clone(), value);
        Ok(())
    }

    /// Merges a map into what is there.
    pub(crate) fn merge(&self, entry: &mut Entry, map: Map) {
        self.keys.iter().fold(self.of_mut(entry).map_mut(), within).merge(map);
    }

    /// Takes out what stands there.
    pub fn delete(&self, entry: &mut Entry) -> Option<Value> {
        let mut value = self.of_mut(entry);
        let Some((last, way)) = self.keys.split_last() else {
            return match self.root {
                Root::Body => Some(std::mem::take(value)),
                Root::Attributes | Root::Resource => Some(std::mem::replace(value, Value::Map(Map::default()))),
            };
        };
        for key in way {
            let Value::Map(map) = value else { return None };
            value = map.get_mut(key)?;
        }
        if let Value::Map(map) = value { map.remove(last) } else { None }
    }
}

/// The map of a key; what is there and is none becomes one.
fn within<'a>(map: &'a mut Map, key: &Text) -> &'a mut Map {
    if map.get(key).is_none() {
        map.put(key.clone(), Value::Map(Map::default()));
    }
    match map.get_mut(key) {
        Some(value) => value.map_mut(),
        None => unreachable!("it was put there"),
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.root {
            Root::Body => "body",
            Root::Attributes => "attributes",
            Root::Resource => "resource",
        })?;
        let dotted = self.keys.iter().any(|key| key.contains(&b'.'));
        for key in &self.keys {
            if dotted {
                write!(f, "['{}']", key.lossy())?;
            } else {
                write!(f, ".{}", key.lossy())?;
            }
        }
        Ok(())
    }
}

/// Splits a field into its keys.
fn split(text: &str) -> Result<Vec<String>, FieldError> {
    enum State {
        Begin,
        InBracket,
        InQuote(char),
        OutQuote,
        OutBracket,
        Plain,
    }
    let mut keys = Vec::new();
    let mut state = State::Begin;
    let mut start = 0;
    for (at, c) in text.char_indices() {
        state = match state {
            State::Begin if c == '[' => State::InBracket,
            State::Begin => {
                start = at;
                State::Plain
            }
            State::InBracket if c == '\'' || c == '"' => {
                start = at + 1;
                State::InQuote(c)
            }
            State::InBracket => {
                return Err(FieldError("splitting field: strings in brackets must be surrounded by quotes"));
            }
            State::InQuote(quote) if c == quote => {
                keys.push(text[start..at].to_owned());
                State::OutQuote
            }
            State::InQuote(quote) => State::InQuote(quote),
            State::OutQuote if c == ']' => State::OutBracket,
            State::OutQuote => {
                return Err(FieldError("splitting field: found characters between closed quote and closing bracket"));
            }
            State::OutBracket if c == '.' => {
                start = at + 1;
                State::Plain
            }
            State::OutBracket if c == '[' => State::InBracket,
            State::OutBracket => {
                return Err(FieldError(
                    "splitting field: bracketed access must be followed by a dot or another bracketed access",
                ));
            }
            State::Plain => match c {
                '.' => {
                    keys.push(text[start..at].to_owned());
                    start = at + 1;
                    State::Plain
                }
                '[' => {
                    keys.push(text[start..at].to_owned());
                    State::InBracket
                }
                _ => State::Plain,
            },
        };
    }
    match state {
        State::InBracket | State::OutQuote => return Err(FieldError("splitting field: found unclosed left bracket")),
        State::InQuote('"') => return Err(FieldError("splitting field: found unclosed double quote")),
        State::InQuote(_) => return Err(FieldError("splitting field: found unclosed single quote")),
        State::Plain => keys.push(text[start..].to_owned()),
        State::Begin | State::OutBracket => {}
    }
    if keys.is_empty() { Err(FieldError("splitting field: fields size is 0")) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read_as_the_reference_reads_them() {
        for (text, shown) in [
            ("body", Ok("body")),
            ("body.a.b", Ok("body.a.b")),
            ("attributes[\"a.b\"]", Ok("attributes['a.b']")),
            ("resource['a']['b'].c", Ok("resource.a.b.c")),
            ("['body'].x", Ok("body.x")),
            ("attributes", Err("attributes cannot be referenced without subfield")),
            ("resource", Err("resource cannot be referenced without subfield")),
            ("other.a", Err("unrecognized prefix")),
            ("", Err("splitting field: fields size is 0")),
            ("body[a]", Err("splitting field: strings in brackets must be surrounded by quotes")),
            ("body['a'", Err("splitting field: found unclosed left bracket")),
            ("body['a", Err("splitting field: found unclosed single quote")),
            ("body[\"a", Err("splitting field: found unclosed double quote")),
            ("body['a'b", Err("splitting field: found characters between closed quote and closing bracket")),
            (
                "body['a']b",
                Err("splitting field: bracketed access must be followed by a dot or another bracketed access"),
            ),
        ] {
            let found = Field::parse(text, false).map(|field| field.to_string()).map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), shown, "{text}");
        }
    }

    #[test]
    fn what_stands_in_the_way_gives_way_and_maps_are_merged() {
        let field = |text: &str| Field::parse(text, true).unwrap();
        let mut entry = Entry::of(Value::str("text"), 0);
        field("body.a.b").set(&mut entry, Value::Int(1)).unwrap();
        let more: Map = [(Text::of("c"), Value::Int(2))].into_iter().collect();
        field("body.a").set(&mut entry, Value::Map(more)).unwrap();
        assert_eq!(field("body.a.b").get(&entry), Some(&Value::Int(1)));
        assert_eq!(field("body.a.c").delete(&mut entry), Some(Value::Int(2)));
        assert_eq!(field("body.a.c").delete(&mut entry), None);
        assert_eq!(field("attributes").set(&mut entry, Value::Null), Err("cannot set attributes root"));
        assert!(matches!(field("body").delete(&mut entry), Some(Value::Map(_))));
        assert_eq!(entry.body, Value::Null);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,30}", signs in "(body|attributes)[\\['\"\\].a]{0,12}") {
            let _ = Field::parse(&text, true);
            let _ = Field::parse(&signs, false);
        }
    }
}
