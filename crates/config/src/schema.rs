//! What a component, a block or an export looks like: the static tables that the derives write.
//!
//! The same tables drive decoding, static checks, `corten schema`, the reference pages, the web interface and the
//! language server. Tables refer to each other through functions, so that a block may contain itself.

use std::any::Any;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use corten_syntax::quote;

use crate::arguments::RecordOps;
use crate::decode::{self, Mismatches, ValueContext};
use crate::value::{Type, Value};

/// How settled a component, block, attribute, word or function is. The order is from least to most settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stability {
    /// May change or go away at any time.
    Experimental,
    /// Works, and may still change.
    PublicPreview,
    /// Settled.
    #[default]
    GenerallyAvailable,
}

impl Stability {
    /// The word for it on the command line and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Stability::Experimental => "experimental",
            Stability::PublicPreview => "public-preview",
            Stability::GenerallyAvailable => "generally-available",
        }
    }

    /// The text of the refusal when this level lies below the minimum, and nothing otherwise. The subject reads
    /// `component "prometheus.x"`, `block "http"`, `array.combine_maps`.
    pub fn refusal(self, subject: &str, minimum: Stability) -> Option<String> {
        (self < minimum).then(|| {
            format!(
                "{subject} is at stability level \"{self}\", which is below the minimum allowed stability level \
                 \"{minimum}\". Use --stability.level command-line flag to enable \"{self}\" features"
            )
        })
    }
}

impl fmt::Display for Stability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Stability {
    type Err = UnknownStability;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Stability::Experimental, Stability::PublicPreview, Stability::GenerallyAvailable]
            .into_iter()
            .find(|level| level.name() == text)
            .ok_or_else(|| UnknownStability(text.to_owned()))
    }
}

/// A word that is no stability level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownStability(String);

impl fmt::Display for UnknownStability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid stability level {}", quote(&self.0))
    }
}

impl std::error::Error for UnknownStability {}

fn serialize_stability<S: Serializer>(level: &Stability, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(level.name())
}

/// A decoded value of a field, whatever its type.
pub type Slot = Box<dyn Any>;

/// The attributes of a block that takes any: names and values.
pub type Entries<'a> = Vec<(&'a str, &'a dyn Any)>;

/// The blocks of a group: the number of the variant, and what it holds.
pub type Variants<'a> = Vec<(usize, &'a dyn Any)>;

/// The fields of a block, of an object or of a component's exports.
#[derive(Clone, Copy)]
pub struct Schema {
    /// The Rust type with its module. Two schemas are the same if their names are.
    pub name: &'static str,
    /// The doc comment of the type, in Markdown.
    pub doc: &'static str,
    /// The fields, in the order of their declaration.
    pub fields: &'static [Field],
    /// How a value of the type is made from its fields and read again.
    pub ops: RecordOps,
}

/// One field.
#[derive(Clone, Copy)]
pub struct Field {
    /// The name that the user writes. Of a group or a flattened struct it is the member's, and the user never sees it.
    pub name: &'static str,
    /// The doc comment, in Markdown. Never empty but for flattened structs.
    pub doc: &'static str,
    /// The level below which the user may not write it.
    pub stability: Stability,
    /// What to use instead, if the field is deprecated.
    pub deprecated: Option<&'static str>,
    /// Of an export that may be secret: the argument that says whether it is.
    pub secret_if: Option<&'static str>,
    /// What it is.
    pub kind: FieldKind,
}

/// What a field is.
#[derive(Clone, Copy)]
pub enum FieldKind {
    /// `name = value`.
    Attr {
        /// What the value converts to.
        ty: &'static TypeInfo,
        /// What stands for it when the user does not write it.
        absent: Absent,
    },
    /// `name { ... }`.
    Block {
        /// What it converts to, and how often it may stand.
        block: &'static BlockType,
        /// What stands for it when the user does not write it.
        absent: BlockAbsent,
        /// Defaults that differ at this place from those of the block's type: name and literal.
        defaults: &'static [(&'static str, &'static str)],
    },
    /// `prefix.one { ... } prefix.other { ... }`, in textual order.
    Group {
        /// The part of the blocks' names before the last dot.
        prefix: &'static str,
        /// What the blocks convert to.
        group: &'static GroupType,
    },
    /// The fields of another struct, as if they stood here.
    Flatten {
        /// The fields.
        schema: fn() -> &'static Schema,
        /// Defaults that differ at this place from those of the struct: name and literal.
        defaults: &'static [(&'static str, &'static str)],
    },
    /// The label of the block.
    Label,
}

/// What stands for an attribute that the user does not write.
#[derive(Clone, Copy)]
pub enum Absent {
    /// Nothing: it is required.
    Refused,
    /// The zero value of the type; for an `Option`, nothing.
    Zero,
    /// A literal of the user's language, decoded as the user's own text would be.
    Literal(&'static str),
    /// What a function returns.
    Computed {
        /// Words about it, for the documentation.
        text: &'static str,
        /// Makes the value.
        make: fn() -> Slot,
    },
}

impl Absent {
    /// What stands for an attribute that says nothing about its absence.
    pub const fn of(optional: bool) -> Self {
        if optional { Absent::Zero } else { Absent::Refused }
    }
}

/// What stands for a block that the user does not write.
#[derive(Clone, Copy)]
pub enum BlockAbsent {
    /// Nothing: it is required.
    Refused,
    /// The zero value: nothing, no blocks, or all fields zero.
    Zero,
    /// A block with nothing in it.
    Defaults,
    /// What a function returns.
    Computed {
        /// Words about it, for the documentation.
        text: Option<&'static str>,
        /// Makes the value.
        make: fn() -> Slot,
    },
}

impl BlockAbsent {
    /// What stands for a block that says nothing about its absence.
    pub const fn of(arity: Arity) -> Self {
        match arity {
            Arity::One | Arity::Exactly(_) => BlockAbsent::Refused,
            Arity::Optional | Arity::Many => BlockAbsent::Zero,
        }
    }
}

/// How often a block may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Once.
    One,
    /// Once, or not at all.
    Optional,
    /// Any number of times.
    Many,
    /// So many times.
    Exactly(usize),
}

/// What stands between the braces of a block.
#[derive(Clone, Copy)]
pub enum Body {
    /// Fields that are known.
    Struct(fn() -> &'static Schema),
    /// Attributes of any name.
    Map {
        /// What each converts to.
        element: &'static TypeInfo,
        /// Makes the map.
        collect: fn(Vec<(&str, Slot)>) -> Option<Slot>,
        /// Reads it again.
        entries: for<'a> fn(&'a dyn Any) -> Entries<'a>,
    },
}

/// How a field's type holds blocks.
#[derive(Clone, Copy)]
pub struct BlockType {
    /// What stands between the braces.
    pub body: Body,
    /// How often the block may stand.
    pub arity: Arity,
    /// Makes the field's value of the blocks.
    pub collect: fn(Vec<Slot>) -> Option<Slot>,
    /// Reads the blocks of the field's value.
    pub items: for<'a> fn(&'a dyn Any) -> Vec<&'a dyn Any>,
    /// The zero value of the field's type.
    pub zero: fn() -> Option<Slot>,
}

/// How a field's type holds the blocks of a group.
#[derive(Clone, Copy)]
pub struct GroupType {
    /// The blocks.
    pub one_of: fn() -> &'static OneOfSchema,
    /// Makes the field's value of the blocks: the number of the variant and what it holds.
    pub collect: fn(Vec<(usize, Slot)>) -> Option<Slot>,
    /// Reads the blocks of the field's value.
    pub items: for<'a> fn(&'a dyn Any) -> Variants<'a>,
}

/// The blocks of a group.
#[derive(Clone, Copy)]
pub struct OneOfSchema {
    /// The Rust type with its module.
    pub name: &'static str,
    /// The doc comment of the type, in Markdown.
    pub doc: &'static str,
    /// The blocks.
    pub variants: &'static [Variant],
}

/// A block of a group.
#[derive(Clone, Copy)]
pub struct Variant {
    /// The part of the name after the group's prefix.
    pub name: &'static str,
    /// The doc comment, in Markdown.
    pub doc: &'static str,
    /// The level below which the user may not write it.
    pub stability: Stability,
    /// What to use instead, if the block is deprecated.
    pub deprecated: Option<&'static str>,
    /// What stands between the braces.
    pub body: Body,
}

/// What a value converts to, and how.
#[derive(Clone, Copy)]
pub struct TypeInfo {
    /// What it is.
    pub shape: Shape,
    /// Converts a value.
    pub decode: fn(&Value, &ValueContext) -> Result<Slot, Mismatches>,
    /// What `null` converts to, if anything.
    pub zero: fn() -> Option<Slot>,
    /// Converts back.
    pub to_value: fn(&dyn Any) -> Option<Value>,
}

/// What a value converts to. The display form is the one of the reference pages: `list(string)`.
#[derive(Clone, Copy)]
pub enum Shape {
    /// Anything.
    Any,
    /// A boolean.
    Bool,
    /// Text.
    String,
    /// A signed integer.
    Int,
    /// An unsigned integer.
    Uint,
    /// A floating-point number.
    Float,
    /// A span of time.
    Duration,
    /// A secret.
    Secret,
    /// A string that may be secret.
    OptionalSecret,
    /// Text with a meaning of its own, such as an address; the name is what the reference pages print.
    Text(&'static str),
    /// One of several words.
    Words(&'static Words),
    /// Any number of one type.
    List(&'static TypeInfo),
    /// So many of one type.
    Array(&'static TypeInfo, usize),
    /// Names with values of one type.
    Map(&'static TypeInfo),
    /// An object with fields that are known.
    Object(fn() -> &'static Schema),
    /// A value of a component.
    Capsule(&'static CapsuleInfo),
}

/// A type of capsules.
#[derive(Debug, PartialEq, Eq)]
pub struct CapsuleInfo {
    /// The name in diagnostics, as the reference prints it in `capsule("<name>")`.
    pub type_name: &'static str,
    /// The name on the reference pages: `MetricsReceiver`.
    pub shown: &'static str,
    /// Whether objects convert to and from it, as they do to a target.
    pub object_like: bool,
    /// The names of other types that convert to it.
    pub from: &'static [&'static str],
}

/// The words of an enum that is read from text.
pub struct Words {
    /// The Rust type with its module.
    pub name: &'static str,
    /// The words.
    pub values: &'static [Word],
    /// Which of them `null` stands for.
    pub zero: usize,
    /// Whether the case of letters matters not.
    pub ignore_case: bool,
    /// Words the refusal of any other text.
    pub refusal: Option<fn(&str) -> String>,
}

/// One word.
pub struct Word {
    /// As the user writes it.
    pub text: &'static str,
    /// The doc comment, in Markdown.
    pub doc: &'static str,
    /// The level below which the user may not write it.
    pub stability: Stability,
}

impl Words {
    /// The number of the word that a text is.
    ///
    /// # Errors
    /// The refusal of a text that is none of the words.
    pub fn find(&self, text: &str) -> Result<usize, String> {
        let found = self.values.iter().position(|word| match self.ignore_case {
            true => word.text.eq_ignore_ascii_case(text),
            false => word.text == text,
        });
        found.ok_or_else(|| match self.refusal {
            Some(refusal) => refusal(text),
            None => {
                let words: Vec<String> = self.values.iter().map(|word| quote(word.text)).collect();
                format!("unrecognized value {}, must be one of {}", quote(text), words.join(", "))
            }
        })
    }
}

impl Schema {
    /// Which field is the label, if the block has one.
    pub fn label(&self) -> Option<usize> {
        self.fields.iter().position(|field| matches!(field.kind, FieldKind::Label))
    }

    /// The field of a name, looked for in flattened structs as well.
    pub fn find(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find_map(|field| match field.kind {
            FieldKind::Flatten { schema, .. } => schema().find(name),
            FieldKind::Group { .. } | FieldKind::Label => None,
            _ => (field.name == name).then_some(field),
        })
    }

    /// Whether the name of a block begins so.
    pub(crate) fn begins_name(&self, prefix: &str) -> bool {
        self.fields.iter().any(|field| match field.kind {
            FieldKind::Flatten { schema, .. } => schema().begins_name(prefix),
            FieldKind::Group { prefix: group, .. } => format!("{group}.").starts_with(prefix),
            FieldKind::Attr { .. } | FieldKind::Block { .. } => field.name.starts_with(prefix),
            FieldKind::Label => false,
        })
    }

    /// The type of an attribute of a name, which for exports is the type of the export.
    pub fn attr(&self, name: &str) -> Option<&'static TypeInfo> {
        match self.find(name)?.kind {
            FieldKind::Attr { ty, .. } => Some(ty),
            _ => None,
        }
    }
}

impl Shape {
    /// The type of the language that such a value has.
    pub fn kind(&self) -> Type {
        match self {
            Shape::Any => Type::Null,
            Shape::Bool => Type::Bool,
            Shape::String | Shape::Duration | Shape::Text(_) | Shape::Words(_) => Type::String,
            Shape::Int | Shape::Uint | Shape::Float => Type::Number,
            Shape::Secret | Shape::OptionalSecret | Shape::Capsule(_) => Type::Capsule,
            Shape::List(_) | Shape::Array(..) => Type::Array,
            Shape::Map(_) | Shape::Object(_) => Type::Object,
        }
    }

    /// Whether a value of another shape, which is not known yet, may convert to this one.
    ///
    /// # Errors
    /// The text of the diagnostic, when no value of that shape ever does: `expected array, got string`.
    pub fn accepts(&self, got: &Shape) -> Result<(), String> {
        let refuse = || Err(format!("expected {}, got {}", self.kind(), got.kind()));
        match (self, got) {
            (Shape::Any, _) | (_, Shape::Any) => Ok(()),
            (Shape::Capsule(want), Shape::Capsule(have)) => {
                let known = want.type_name == have.type_name || want.from.contains(&have.type_name);
                if known || (want.object_like && have.object_like) {
                    return Ok(());
                }
                Err(format!("expected capsule({}), got capsule({})", quote(want.type_name), quote(have.type_name)))
            }
            (Shape::Capsule(want), Shape::Map(_) | Shape::Object(_)) if want.object_like => Ok(()),
            (Shape::Map(_) | Shape::Object(_), Shape::Capsule(have)) if have.object_like => Ok(()),
            (Shape::List(want) | Shape::Array(want, _), Shape::List(have) | Shape::Array(have, _))
            | (Shape::Map(want), Shape::Map(have)) => want.shape.accepts(&have.shape),
            (Shape::Map(_) | Shape::Object(_), Shape::Map(_) | Shape::Object(_)) => Ok(()),
            // Labelled blocks are an object whose keys are the labels.
            (Shape::List(want), Shape::Map(_) | Shape::Object(_)) if want.shape.is_labelled() => Ok(()),
            (Shape::Secret | Shape::OptionalSecret, Shape::Secret | Shape::OptionalSecret) => Ok(()),
            (Shape::Secret | Shape::OptionalSecret, _) if got.kind() == Type::String => Ok(()),
            (_, Shape::Secret) if self.kind() == Type::String => Err(crate::convert::SECRET_INTO_STRING.to_owned()),
            // An optional secret is a string as long as it is not flagged, which only its value tells.
            (_, Shape::OptionalSecret) if matches!(self.kind(), Type::String | Type::Number) => Ok(()),
            _ => match (self.kind(), got.kind()) {
                (Type::String | Type::Number, Type::String | Type::Number) => Ok(()),
                (Type::Bool, Type::Bool) => Ok(()),
                _ => refuse(),
            },
        }
    }

    /// Whether it is an object that comes with a label.
    pub fn is_labelled(&self) -> bool {
        matches!(self, Shape::Object(schema) if schema().label().is_some())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Any => f.write_str("any"),
            Shape::Bool => f.write_str("bool"),
            Shape::String | Shape::Words(_) => f.write_str("string"),
            Shape::Int => f.write_str("int"),
            Shape::Uint => f.write_str("uint"),
            Shape::Float => f.write_str("float"),
            Shape::Duration => f.write_str("duration"),
            Shape::Secret => f.write_str("secret"),
            Shape::OptionalSecret => f.write_str("string or secret"),
            Shape::Text(name) => f.write_str(name),
            Shape::List(element) | Shape::Array(element, _) => write!(f, "list({})", element.shape),
            Shape::Map(element) => write!(f, "map({})", element.shape),
            Shape::Object(_) => f.write_str("object"),
            Shape::Capsule(info) => f.write_str(info.shown),
        }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A schema as flat lists, in the form of `corten schema`: what documentation and user interfaces print.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Listing {
    /// The attributes.
    pub arguments: Vec<ListedArgument>,
    /// The blocks at every depth, each before those within it.
    pub blocks: Vec<ListedBlock>,
}

/// An attribute of a listing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListedArgument {
    /// Its name.
    pub name: &'static str,
    /// Its type, as the reference pages print it.
    #[serde(rename = "type")]
    pub ty: String,
    /// Whether the user must write it.
    pub required: bool,
    /// The literal, or words about what is computed.
    pub default: Option<String>,
    /// The doc comment, in Markdown.
    pub doc: &'static str,
    /// The level below which the user may not write it.
    #[serde(serialize_with = "serialize_stability")]
    pub stability: Stability,
    /// What to use instead, if it is deprecated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<&'static str>,
    /// The words that it takes, if it takes words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<ListedWord>,
    /// The fields of the object that it takes, or of each of the objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub object_fields: Vec<ListedArgument>,
}

/// A word of a listing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListedWord {
    /// As the user writes it.
    pub value: &'static str,
    /// The doc comment, in Markdown.
    pub doc: &'static str,
    /// The level below which the user may not write it.
    #[serde(serialize_with = "serialize_stability")]
    pub stability: Stability,
}

/// A block of a listing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListedBlock {
    /// The names from the outermost block to this one, joined by ` > `.
    pub path: String,
    /// Whether the user must write it.
    pub required: bool,
    /// Whether it may stand more than once.
    pub repeatable: bool,
    /// Whether it takes a label.
    pub labeled: bool,
    /// The doc comment of the field, in Markdown.
    pub doc: &'static str,
    /// The level below which the user may not write it.
    #[serde(serialize_with = "serialize_stability")]
    pub stability: Stability,
    /// What to use instead, if it is deprecated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<&'static str>,
    /// What stands for it when it is absent, if there are words about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<&'static str>,
    /// The type of its attributes, if it takes any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any_attribute: Option<String>,
    /// The path of the block around this one that has the same contents, if this one contains itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// The groups that it takes and whose blocks are listed further out: `stage.*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub same_groups: Vec<String>,
    /// Its attributes.
    pub arguments: Vec<ListedArgument>,
}

/// An export of a listing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListedExport {
    /// Its name.
    pub name: &'static str,
    /// Its type, as the reference pages print it.
    #[serde(rename = "type")]
    pub ty: String,
    /// The doc comment, in Markdown.
    pub doc: &'static str,
    /// The level below which the user may not read it.
    #[serde(serialize_with = "serialize_stability")]
    pub stability: Stability,
    /// What to use instead, if it is deprecated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<&'static str>,
}

impl Schema {
    /// The schema of arguments as flat lists.
    pub fn listing(&'static self) -> Listing {
        let mut lister = Lister::default();
        lister.body(self, "");
        Listing { arguments: arguments(self, &[]), blocks: lister.blocks }
    }

    /// The schema of exports as a flat list.
    pub fn exports(&'static self) -> Vec<ListedExport> {
        let attr = |field: &Field| match field.kind {
            FieldKind::Attr { ty, .. } => Some(ListedExport {
                name: field.name,
                ty: ty.shape.to_string(),
                doc: field.doc,
                stability: field.stability,
                deprecated: field.deprecated,
            }),
            _ => None,
        };
        self.fields.iter().filter_map(attr).collect()
    }

    /// What is wrong with the tables themselves: names that stand twice once structs are flattened, defaults that do
    /// not decode, defaults of what is not there, missing documentation. A test over all components wants this empty.
    pub fn defects(&'static self) -> Vec<String> {
        let mut inspector = Inspector::default();
        inspector.body(self, &[]);
        inspector.defects
    }
}

/// Defaults that places set for the types within them, outermost place first: the first that names a field counts.
pub(crate) type Overrides<'a> = &'a [&'static [(&'static str, &'static str)]];

/// The literal that a place sets for a field.
pub(crate) fn override_of(overrides: Overrides<'_>, name: &str) -> Option<&'static str> {
    overrides.iter().find_map(|place| place.iter().find(|(field, _)| *field == name).map(|(_, text)| *text))
}

#[derive(Default)]
struct Lister {
    blocks: Vec<ListedBlock>,
    /// The schemas and groups around the present place, with its path.
    around: Vec<(&'static str, String)>,
}

impl Lister {
    /// Adds the blocks of a body, and gives the groups of which all is listed already.
    fn body(&mut self, schema: &'static Schema, path: &str) -> Vec<String> {
        self.around.push((schema.name, path.to_owned()));
        let mut groups = Vec::new();
        self.nested(schema, path, &mut groups);
        self.around.pop();
        groups
    }

    fn nested(&mut self, schema: &'static Schema, path: &str, groups: &mut Vec<String>) {
        for field in schema.fields {
            match field.kind {
                FieldKind::Attr { .. } | FieldKind::Label => {}
                FieldKind::Flatten { schema, .. } => self.nested(schema(), path, groups),
                FieldKind::Block { block, absent, defaults } => {
                    let listed = ListedBlock {
                        path: join(path, field.name),
                        required: matches!(absent, BlockAbsent::Refused),
                        repeatable: matches!(block.arity, Arity::Many | Arity::Exactly(2..)),
                        labeled: false,
                        doc: field.doc,
                        stability: field.stability,
                        deprecated: field.deprecated,
                        default: match absent {
                            BlockAbsent::Computed { text, .. } => text,
                            _ => None,
                        },
                        any_attribute: None,
                        same_as: None,
                        same_groups: Vec::new(),
                        arguments: Vec::new(),
                    };
                    self.block(listed, block.body, &[defaults]);
                }
                FieldKind::Group { prefix, group } => {
                    let one_of = (group.one_of)();
                    if self.around.iter().any(|(name, _)| *name == one_of.name) {
                        groups.push(format!("{prefix}.*"));
                        continue;
                    }
                    self.around.push((one_of.name, path.to_owned()));
                    for variant in one_of.variants {
                        let listed = ListedBlock {
                            path: join(path, &format!("{prefix}.{}", variant.name)),
                            required: false,
                            repeatable: true,
                            labeled: false,
                            doc: variant.doc,
                            stability: field.stability.min(variant.stability),
                            deprecated: variant.deprecated.or(field.deprecated),
                            default: None,
                            any_attribute: None,
                            same_as: None,
                            same_groups: Vec::new(),
                            arguments: Vec::new(),
                        };
                        self.block(listed, variant.body, &[]);
                    }
                    self.around.pop();
                }
            }
        }
    }

    fn block(&mut self, mut listed: ListedBlock, body: Body, overrides: Overrides<'_>) {
        let place = self.blocks.len();
        let path = listed.path.clone();
        match body {
            Body::Map { element, .. } => {
                listed.any_attribute = Some(element.shape.to_string());
                self.blocks.push(listed);
            }
            Body::Struct(schema) => {
                let schema = schema();
                listed.labeled = schema.label().is_some();
                listed.same_as =
                    self.around.iter().find(|(name, _)| *name == schema.name).map(|(_, path)| path.clone());
                listed.arguments = arguments(schema, overrides);
                let again = listed.same_as.is_some();
                self.blocks.push(listed);
                if !again {
                    self.blocks[place].same_groups = self.body(schema, &path);
                }
            }
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path} > {name}") }
}

/// The attributes of a body, those of flattened structs included.
fn arguments(schema: &'static Schema, overrides: Overrides<'_>) -> Vec<ListedArgument> {
    let mut around = Vec::new();
    listed_arguments(schema, overrides, &mut around)
}

fn listed_arguments(
    schema: &'static Schema,
    overrides: Overrides<'_>,
    around: &mut Vec<&'static str>,
) -> Vec<ListedArgument> {
    let mut out = Vec::new();
    for field in schema.fields {
        match field.kind {
            FieldKind::Flatten { schema, defaults } => {
                let overrides: Vec<_> = overrides.iter().copied().chain([defaults]).collect();
                out.extend(listed_arguments(schema(), &overrides, around));
            }
            FieldKind::Attr { ty, absent } => {
                let absent = override_of(overrides, field.name).map_or(absent, Absent::Literal);
                let (required, default) = match absent {
                    Absent::Refused => (true, None),
                    Absent::Zero => (false, zero_text(ty)),
                    Absent::Literal(text) | Absent::Computed { text, .. } => (false, Some(text.to_owned())),
                };
                out.push(ListedArgument {
                    name: field.name,
                    ty: ty.shape.to_string(),
                    required,
                    default,
                    doc: field.doc,
                    stability: field.stability,
                    deprecated: field.deprecated,
                    values: words(&ty.shape),
                    object_fields: object_fields(&ty.shape, around),
                });
            }
            _ => {}
        }
    }
    out
}

/// The words that a shape takes, or that its elements take.
fn words(shape: &Shape) -> Vec<ListedWord> {
    match shape {
        Shape::Words(words) => words
            .values
            .iter()
            .map(|word| ListedWord { value: word.text, doc: word.doc, stability: word.stability })
            .collect(),
        Shape::List(element) | Shape::Array(element, _) | Shape::Map(element) => words(&element.shape),
        _ => Vec::new(),
    }
}

/// The fields of the object that a shape is, or that its elements are. An object within itself is not listed again.
fn object_fields(shape: &Shape, around: &mut Vec<&'static str>) -> Vec<ListedArgument> {
    match shape {
        Shape::Object(schema) => {
            let schema = schema();
            if around.contains(&schema.name) {
                return Vec::new();
            }
            around.push(schema.name);
            let fields = listed_arguments(schema, &[], around);
            around.pop();
            fields
        }
        Shape::List(element) | Shape::Array(element, _) | Shape::Map(element) => object_fields(&element.shape, around),
        _ => Vec::new(),
    }
}

/// The zero value as the user would write it, where it says more than that there is nothing.
fn zero_text(ty: &TypeInfo) -> Option<String> {
    let zero = (ty.zero)()?;
    let value = (ty.to_value)(&*zero)?;
    match ty.shape {
        Shape::Capsule(_) | Shape::Object(_) | Shape::Secret | Shape::OptionalSecret => None,
        _ if value.is_null() => None,
        _ => Some(value.to_string()),
    }
}

#[derive(Default)]
struct Inspector {
    defects: Vec<String>,
    /// The schemas, groups and objects that were looked at. Each is looked at once, but for its defaults at a place.
    seen: Vec<&'static str>,
}

impl Inspector {
    fn body(&mut self, schema: &'static Schema, overrides: Overrides<'_>) {
        for place in overrides {
            for (name, text) in *place {
                match schema.attr(name) {
                    Some(ty) => self.literal(schema, name, ty, text),
                    None => {
                        self.defects.push(format!("{}: no attribute {name:?} that a default could be for", schema.name))
                    }
                }
            }
        }
        if self.seen.contains(&schema.name) {
            return;
        }
        self.seen.push(schema.name);
        self.names(schema);
        self.fields(schema);
    }

    fn fields(&mut self, schema: &'static Schema) {
        for field in schema.fields {
            if field.doc.is_empty() && !matches!(field.kind, FieldKind::Flatten { .. }) {
                self.defects.push(format!("{}: field {:?} is not documented", schema.name, field.name));
            }
            match field.kind {
                FieldKind::Label => {}
                FieldKind::Attr { ty, absent } => {
                    if let Absent::Literal(text) = absent {
                        self.literal(schema, field.name, ty, text);
                    }
                    self.shape(&ty.shape);
                }
                FieldKind::Block { block, defaults, .. } => self.block(schema, field.name, block.body, defaults),
                FieldKind::Flatten { schema: inner, defaults } => self.body(inner(), &[defaults]),
                FieldKind::Group { group, .. } => {
                    let one_of = (group.one_of)();
                    if self.seen.contains(&one_of.name) {
                        continue;
                    }
                    self.seen.push(one_of.name);
                    for variant in one_of.variants {
                        self.block(schema, variant.name, variant.body, &[]);
                    }
                }
            }
        }
    }

    fn block(
        &mut self,
        schema: &'static Schema,
        name: &str,
        body: Body,
        defaults: &'static [(&'static str, &'static str)],
    ) {
        match body {
            Body::Struct(inner) => self.body(inner(), &[defaults]),
            Body::Map { element, .. } => {
                if !defaults.is_empty() {
                    self.defects
                        .push(format!("{}: block {name:?} takes any attributes, and has defaults", schema.name));
                }
                self.shape(&element.shape);
            }
        }
    }

    fn shape(&mut self, shape: &Shape) {
        match shape {
            Shape::Object(schema) => self.body(schema(), &[]),
            Shape::List(element) | Shape::Array(element, _) | Shape::Map(element) => self.shape(&element.shape),
            _ => {}
        }
    }

    fn literal(&mut self, schema: &Schema, name: &str, ty: &'static TypeInfo, text: &'static str) {
        if let Err(error) = decode::default_value(ty, text) {
            self.defects.push(format!("{}: default {text} of {name:?}: {error}", schema.name));
        }
    }

    /// All names of a body stand once.
    fn names(&mut self, schema: &'static Schema) {
        fn collect(schema: &'static Schema, names: &mut Vec<String>, labels: &mut usize) {
            for field in schema.fields {
                match field.kind {
                    FieldKind::Flatten { schema, .. } => collect(schema(), names, labels),
                    FieldKind::Label => *labels += 1,
                    FieldKind::Group { prefix, group } => {
                        names.extend((group.one_of)().variants.iter().map(|v| format!("{prefix}.{}", v.name)));
                    }
                    FieldKind::Attr { .. } | FieldKind::Block { .. } => names.push(field.name.to_owned()),
                }
            }
        }
        let (mut names, mut labels) = (Vec::new(), 0);
        collect(schema, &mut names, &mut labels);
        if labels > 1 {
            self.defects.push(format!("{}: more than one label", schema.name));
        }
        names.sort();
        for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
            self.defects.push(format!("{}: the name {:?} stands twice", schema.name, pair[0]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Secret, Typed};

    const METRICS: CapsuleInfo = CapsuleInfo { type_name: "m", shown: "M", object_like: false, from: &["any"] };
    const TARGET: CapsuleInfo = CapsuleInfo { type_name: "t", shown: "T", object_like: true, from: &[] };
    const ANY: CapsuleInfo = CapsuleInfo { type_name: "any", shown: "A", object_like: false, from: &[] };

    #[test]
    fn stability_is_read_as_it_is_printed() {
        for level in [Stability::Experimental, Stability::PublicPreview, Stability::GenerallyAvailable] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        let error = "beta".parse::<Stability>().map_err(|error| error.to_string());
        assert_eq!(error, Err("invalid stability level \"beta\"".to_owned()));
    }

    #[test]
    fn only_what_lies_below_the_minimum_is_refused() {
        use Stability::{Experimental, GenerallyAvailable, PublicPreview};
        assert_eq!(Experimental.refusal("block \"x\"", Experimental), None);
        assert_eq!(GenerallyAvailable.refusal("block \"x\"", GenerallyAvailable), None);
        assert_eq!(
            PublicPreview.refusal("block \"x\"", GenerallyAvailable).as_deref(),
            Some(
                "block \"x\" is at stability level \"public-preview\", which is below the minimum allowed stability \
                 level \"generally-available\". Use --stability.level command-line flag to enable \"public-preview\" \
                 features"
            )
        );
    }

    #[test]
    fn a_shape_accepts_what_may_convert_to_it() {
        let list_of_strings = Shape::List(String::TYPE);
        let list_of_bools = Shape::List(bool::TYPE);
        let map_of_secrets = Shape::Map(Secret::TYPE);
        let cases = [
            (Shape::Any, Shape::Bool, None),
            (Shape::Bool, Shape::Any, None),
            (Shape::String, Shape::Float, None),
            (Shape::Duration, Shape::String, None),
            (Shape::Int, Shape::String, None),
            (Shape::Int, Shape::OptionalSecret, None),
            (Shape::Bool, Shape::String, Some("expected bool, got string")),
            (Shape::String, Shape::Secret, Some("secrets may not be converted into strings")),
            (Shape::Secret, Shape::String, None),
            (Shape::Secret, Shape::Int, Some("expected capsule, got number")),
            (list_of_strings, list_of_bools, Some("expected string, got bool")),
            (list_of_strings, map_of_secrets, Some("expected array, got object")),
            (map_of_secrets, Shape::Map(String::TYPE), None),
            (Shape::Capsule(&METRICS), Shape::Capsule(&METRICS), None),
            (Shape::Capsule(&METRICS), Shape::Capsule(&ANY), None),
            (Shape::Capsule(&METRICS), Shape::Capsule(&TARGET), Some("expected capsule(\"m\"), got capsule(\"t\")")),
            (Shape::Capsule(&METRICS), Shape::String, Some("expected capsule, got string")),
            (Shape::Capsule(&TARGET), map_of_secrets, None),
            (map_of_secrets, Shape::Capsule(&TARGET), None),
        ];
        for (want, have, expected) in cases {
            assert_eq!(want.accepts(&have).err().as_deref(), expected, "{want} of {have}");
        }
    }
}
