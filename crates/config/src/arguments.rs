//! What the derives implement, and how Rust types stand for blocks.
//!
//! Everything here that is generic is a thin shell: it puts a value into a [`Slot`] or takes one out. What a body says
//! is decoded by one walk over the tables, in [`crate::decode`].

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;

use crate::decode::{self, Decode, Mismatches, Typed, ValueContext};
use crate::encode;
use crate::error::ValueError;
use crate::schema::{Arity, BlockType, Body, FieldKind, GroupType, OneOfSchema, Schema, Shape, Slot, Stability, Words};
use crate::value::Value;

/// A struct with a table of its fields. Derived with [`Arguments`](macro@crate::Arguments) or [`Exports`](macro@crate::Exports).
pub trait Record: Sized + 'static {
    /// The table.
    const SCHEMA: &'static Schema;
    /// Makes the struct of its fields, in the order of the table. Nothing when one is missing or of another type.
    fn assemble(slots: &mut Slots) -> Option<Self>;
    /// A field by its place in the table.
    fn field(&self, index: usize) -> Option<&dyn Any>;
    /// Checks the rules between the fields.
    ///
    /// # Errors
    /// Every rule that does not hold.
    fn check_rules(&self) -> Result<(), CheckErrors>;
    /// Checks what the reference checks when it builds the component: at run time the text of the error says so.
    ///
    /// # Errors
    /// Every rule that does not hold.
    fn check_build_rules(&self, minimum: Stability) -> Result<(), CheckErrors>;
}

/// The arguments of a component, or the contents of a block or object: see the derive of the same name.
pub trait Arguments: Record {
    /// The arguments of a block with nothing in it, where what is required is zero. Nothing when a required field has no
    /// zero value.
    fn defaults() -> Option<Self> {
        unboxed(decode::default_record(Self::SCHEMA, &[])?)
    }
}

/// The exports of a component: see the derive of the same name.
pub trait Exports: Record {
    /// The exports as the language sees them.
    fn to_value(&self) -> Value {
        to_object(self)
    }

    /// What a component exports before it has exported anything: nothing when a field has no zero value.
    fn zero() -> Option<Self> {
        zero()
    }
}

/// For components without arguments, and for blocks without contents.
impl Record for () {
    const SCHEMA: &'static Schema = &Schema { name: "()", doc: "", fields: &[], ops: RecordOps::of::<()>() };

    fn assemble(_: &mut Slots) -> Option<Self> {
        Some(())
    }

    fn field(&self, _: usize) -> Option<&dyn Any> {
        None
    }

    fn check_rules(&self) -> Result<(), CheckErrors> {
        Ok(())
    }

    fn check_build_rules(&self, _: Stability) -> Result<(), CheckErrors> {
        Ok(())
    }
}

impl Arguments for () {}

impl Exports for () {}

/// For variants of very different sizes.
impl<T: Record> Record for Box<T> {
    const SCHEMA: &'static Schema = &Schema { ops: RecordOps::of::<Box<T>>(), ..*T::SCHEMA };

    fn assemble(slots: &mut Slots) -> Option<Self> {
        T::assemble(slots).map(Box::new)
    }

    fn field(&self, index: usize) -> Option<&dyn Any> {
        (**self).field(index)
    }

    fn check_rules(&self) -> Result<(), CheckErrors> {
        (**self).check_rules()
    }

    fn check_build_rules(&self, minimum: Stability) -> Result<(), CheckErrors> {
        (**self).check_build_rules(minimum)
    }
}

impl<T: Arguments> Arguments for Box<T> {}

/// The functions of a [`Record`], without its type.
#[derive(Clone, Copy)]
pub struct RecordOps {
    /// Makes the struct of its fields.
    pub assemble: fn(&mut Slots) -> Option<Slot>,
    /// A field by its place in the table.
    pub field: for<'a> fn(&'a dyn Any, usize) -> Option<&'a dyn Any>,
    /// Checks the rules between the fields.
    pub check: fn(&dyn Any) -> Result<(), CheckErrors>,
    /// Checks what the reference checks when it builds the component.
    pub check_build: fn(&dyn Any, Stability) -> Result<(), CheckErrors>,
}

impl RecordOps {
    /// Those of a type.
    pub const fn of<T: Record>() -> Self {
        RecordOps {
            assemble: assemble_slot::<T>,
            field: field_of_slot::<T>,
            check: check_slot::<T>,
            check_build: check_build_slot::<T>,
        }
    }
}

fn assemble_slot<T: Record>(slots: &mut Slots) -> Option<Slot> {
    T::assemble(slots).map(boxed)
}

fn field_of_slot<T: Record>(value: &dyn Any, index: usize) -> Option<&dyn Any> {
    value.downcast_ref::<T>()?.field(index)
}

fn check_slot<T: Record>(value: &dyn Any) -> Result<(), CheckErrors> {
    value.downcast_ref::<T>().map_or(Ok(()), T::check_rules)
}

fn check_build_slot<T: Record>(value: &dyn Any, minimum: Stability) -> Result<(), CheckErrors> {
    value.downcast_ref::<T>().map_or(Ok(()), |value| value.check_build_rules(minimum))
}

/// The fields of a struct in the making.
#[derive(Default)]
pub struct Slots(Vec<Option<Slot>>);

impl Slots {
    /// As many as a schema has fields, all empty.
    pub(crate) fn empty(schema: &Schema) -> Self {
        Slots(schema.fields.iter().map(|_| None).collect())
    }

    /// Fills a field.
    pub(crate) fn set(&mut self, index: usize, slot: Option<Slot>) {
        if let Some(place) = self.0.get_mut(index) {
            *place = slot;
        }
    }

    /// The value of a field, once.
    pub fn take<T: 'static>(&mut self, index: usize) -> Option<T> {
        unboxed(self.0.get_mut(index)?.take()?)
    }
}

/// A value as a slot.
pub fn boxed<T: 'static>(value: T) -> Slot {
    Box::new(value)
}

/// The value in a slot, if it has this type.
pub fn unboxed<T: 'static>(slot: Slot) -> Option<T> {
    slot.downcast::<T>().ok().map(|value| *value)
}

/// The schema of a type.
pub fn schema_of<T: Record>() -> &'static Schema {
    T::SCHEMA
}

/// The shape of an attribute that takes the fields of a type as an object.
pub const fn object_shape<T: Record>() -> Shape {
    Shape::Object(schema_of::<T>)
}

/// A struct from an object.
///
/// # Errors
/// Every field that does not fit, and every name that the struct does not have.
pub fn from_object<T: Record>(value: &Value, cx: &ValueContext) -> Result<T, Mismatches> {
    let slot = decode::object(T::SCHEMA, value, cx)?;
    unboxed(slot).ok_or_else(|| ValueError::expected(crate::value::Type::Object, value).into())
}

/// A struct with nothing in it. Nothing when a field has no zero value.
pub fn zero<T: Record>() -> Option<T> {
    unboxed(zero_record(T::SCHEMA)?)
}

/// A struct with nothing in it, whatever its type.
pub(crate) fn zero_record(schema: &Schema) -> Option<Slot> {
    let mut slots = Slots::empty(schema);
    for (index, field) in schema.fields.iter().enumerate() {
        slots.set(index, zero_field(&field.kind));
    }
    (schema.ops.assemble)(&mut slots)
}

/// The zero value of a field.
pub(crate) fn zero_field(kind: &FieldKind) -> Option<Slot> {
    match kind {
        FieldKind::Attr { ty, .. } => (ty.zero)(),
        FieldKind::Block { block, .. } => (block.zero)(),
        FieldKind::Group { group, .. } => (group.collect)(Vec::new()),
        FieldKind::Flatten { schema, .. } => zero_record(schema()),
        FieldKind::Label => Some(boxed(String::new())),
    }
}

/// A struct as an object.
pub fn to_object<T: Record>(value: &T) -> Value {
    Value::object(encode::object(T::SCHEMA, value))
}

/// What stands between the braces of a block.
pub trait BlockBody: Sized + 'static {
    /// The table.
    const BODY: Body;
    /// The zero value.
    fn zero_body() -> Option<Self>;
}

impl<T: Arguments> BlockBody for T {
    const BODY: Body = Body::Struct(schema_of::<T>);

    fn zero_body() -> Option<Self> {
        zero()
    }
}

/// Attributes of any name.
impl<T: Decode> BlockBody for BTreeMap<String, T> {
    const BODY: Body = Body::Map { element: T::TYPE, collect: collect_map::<T>, entries: map_entries::<T> };

    fn zero_body() -> Option<Self> {
        Some(BTreeMap::new())
    }
}

fn collect_map<T: 'static>(entries: Vec<(&str, Slot)>) -> Option<Slot> {
    let entries = entries.into_iter().map(|(name, slot)| Some((name.to_owned(), unboxed::<T>(slot)?)));
    entries.collect::<Option<BTreeMap<String, T>>>().map(boxed)
}

fn map_entries<T: 'static>(map: &dyn Any) -> Vec<(&str, &dyn Any)> {
    let map = map.downcast_ref::<BTreeMap<String, T>>();
    map.into_iter().flatten().map(|(name, value)| (name.as_str(), value as &dyn Any)).collect()
}

/// The type of a field that holds blocks.
pub trait BlockField: Sized + 'static {
    /// The table.
    const BLOCK: &'static BlockType;
}

/// One block.
impl<T: BlockBody> BlockField for T {
    const BLOCK: &'static BlockType = &BlockType {
        body: T::BODY,
        arity: Arity::One,
        collect: |mut slots| slots.pop(),
        items: |value| vec![value],
        zero: || T::zero_body().map(boxed),
    };
}

/// One block or none.
impl<T: BlockBody> BlockField for Option<T> {
    const BLOCK: &'static BlockType = &BlockType {
        body: T::BODY,
        arity: Arity::Optional,
        collect: |mut slots| match slots.pop() {
            Some(slot) => unboxed::<T>(slot).map(Some).map(boxed),
            None => Some(boxed(None::<T>)),
        },
        items: |value| {
            let value = value.downcast_ref::<Option<T>>();
            value.into_iter().flatten().map(|value| value as &dyn Any).collect()
        },
        zero: || Some(boxed(None::<T>)),
    };
}

/// Any number of blocks.
impl<T: BlockBody> BlockField for Vec<T> {
    const BLOCK: &'static BlockType = &BlockType {
        body: T::BODY,
        arity: Arity::Many,
        collect: |slots| slots.into_iter().map(unboxed::<T>).collect::<Option<Vec<T>>>().map(boxed),
        items: |value| {
            let value = value.downcast_ref::<Vec<T>>();
            value.into_iter().flatten().map(|value| value as &dyn Any).collect()
        },
        zero: || Some(boxed(Vec::<T>::new())),
    };
}

/// So many blocks.
impl<T: BlockBody, const N: usize> BlockField for [T; N] {
    const BLOCK: &'static BlockType = &BlockType {
        body: T::BODY,
        arity: Arity::Exactly(N),
        collect: |slots| {
            let blocks = slots.into_iter().map(unboxed::<T>).collect::<Option<Vec<T>>>()?;
            <[T; N]>::try_from(blocks).ok().map(boxed)
        },
        items: |value| {
            let value = value.downcast_ref::<[T; N]>();
            value.into_iter().flatten().map(|value| value as &dyn Any).collect()
        },
        zero: || {
            let blocks = (0..N).map(|_| T::zero_body()).collect::<Option<Vec<T>>>()?;
            <[T; N]>::try_from(blocks).ok().map(boxed)
        },
    };
}

/// An enum whose variants are the blocks of a group. Derived with [`Arguments`](macro@crate::Arguments).
pub trait OneOf: Sized + 'static {
    /// The table.
    const SCHEMA: &'static OneOfSchema;
    /// The variant at a place of the table, with what it holds.
    fn wrap(index: usize, slot: Slot) -> Option<Self>;
    /// The place of the variant, and what it holds.
    fn unwrap(&self) -> (usize, &dyn Any);
}

/// The type of a field that holds the blocks of a group.
pub trait GroupField: Sized + 'static {
    /// The table.
    const GROUP: &'static GroupType;
}

/// The blocks of a group in textual order.
impl<T: OneOf> GroupField for Vec<T> {
    const GROUP: &'static GroupType = &GroupType {
        one_of: || T::SCHEMA,
        collect: |blocks| {
            let blocks = blocks.into_iter().map(|(index, slot)| T::wrap(index, slot));
            blocks.collect::<Option<Vec<T>>>().map(boxed)
        },
        items: |value| {
            let value = value.downcast_ref::<Vec<T>>();
            value.into_iter().flatten().map(T::unwrap).collect()
        },
    };
}

/// An enum of words. Derived with the macro of the same name.
pub trait StringEnum: Sized + 'static {
    /// The words.
    const WORDS: &'static Words;
    /// The variant at a place of the table.
    fn from_index(index: usize) -> Option<Self>;
    /// The place of the variant.
    fn index(&self) -> usize;

    /// The word as the user writes it.
    fn as_str(&self) -> &'static str {
        Self::WORDS.values.get(self.index()).map_or("", |word| word.text)
    }

    /// The variant of a word.
    ///
    /// # Errors
    /// The refusal of a text that is none of the words.
    fn parse(text: &str) -> Result<Self, String> {
        let index = Self::WORDS.find(text)?;
        Self::from_index(index).ok_or_else(|| format!("unrecognized value {}", corten_syntax::quote(text)))
    }
}

/// An enum of words from text.
///
/// # Errors
/// What is no text, what is none of the words, and a word below the minimum of stability.
pub fn from_word<T: StringEnum>(value: &Value, cx: &ValueContext) -> Result<T, Mismatches> {
    let index = decode::word(T::WORDS, value, cx)?;
    T::from_index(index).ok_or_else(|| ValueError::expected(crate::value::Type::String, value).into())
}

/// What breaks the rules between the fields of a struct.
///
/// Each error names the fields that the rule reads, as the user writes them: where a static check does not know one of
/// these yet, the error is left out, and otherwise the first of them that the user wrote is what the diagnostic points at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckErrors(Vec<CheckError>);

/// One rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckError {
    /// The fields that the rule reads. Empty for one that reads all of them.
    pub fields: Vec<&'static str>,
    /// Where in the first of the fields the mistake is, as far as that is known: the way there.
    pub within: Vec<CheckStep>,
    /// What is wrong.
    pub message: String,
}

/// One step from a field to the place of a mistake inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStep {
    /// To one of the blocks of the field, counted from 0.
    Block(usize),
    /// To a field of a block.
    Field(&'static str),
    /// To an element of a list.
    Element(usize),
    /// To a byte of a text.
    Byte(usize),
}

impl CheckErrors {
    /// No errors.
    pub fn new() -> Self {
        Self::default()
    }

    /// One error about fields.
    pub fn of(fields: &[&'static str], message: impl Into<String>) -> Self {
        let mut errors = Self::new();
        errors.push(fields, message);
        errors
    }

    /// Adds an error about fields.
    pub fn push(&mut self, fields: &[&'static str], message: impl Into<String>) {
        self.push_within(fields, &[], message);
    }

    /// Adds an error about fields, at a place inside the first of them.
    pub fn push_within(&mut self, fields: &[&'static str], within: &[CheckStep], message: impl Into<String>) {
        self.0.push(CheckError { fields: fields.to_vec(), within: within.to_vec(), message: message.into() });
    }

    /// Adds the errors of something else.
    pub fn extend(&mut self, errors: impl IntoIterator<Item = CheckError>) {
        self.0.extend(errors);
    }

    /// Adds an error about fields if a rule does not hold.
    pub fn require(&mut self, holds: bool, fields: &[&'static str], message: &str) {
        if !holds {
            self.push(fields, message);
        }
    }

    /// The errors, if there are any.
    ///
    /// # Errors
    /// All of them.
    pub fn into_result(self) -> Result<(), CheckErrors> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl IntoIterator for CheckErrors {
    type Item = CheckError;
    type IntoIter = std::vec::IntoIter<CheckError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for CheckErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { "; " }, error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for CheckErrors {}

impl From<String> for CheckErrors {
    fn from(message: String) -> Self {
        CheckErrors::of(&[], message)
    }
}

impl From<&str> for CheckErrors {
    fn from(message: &str) -> Self {
        CheckErrors::of(&[], message)
    }
}

/// What the derive calls when a type has no such method of its own: an inherent method of that name goes first.
pub trait NoCheck {
    /// The rules between fields. Holds always.
    ///
    /// # Errors
    /// None.
    fn check(&self) -> Result<(), CheckErrors> {
        Ok(())
    }

    /// The rules that the reference looks at when it builds the component, some of which depend on the level of stability
    /// that the user allows. Holds always.
    ///
    /// # Errors
    /// None.
    fn check_build(&self, minimum: Stability) -> Result<(), CheckErrors> {
        let _ = minimum;
        Ok(())
    }
}

impl<T> NoCheck for T {}
