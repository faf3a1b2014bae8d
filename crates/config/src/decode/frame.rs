//! A struct in the making, and what happens once all that the user wrote is in it.

use corten_syntax::{Span, parse_expression};

use super::ValueContext;
use crate::arguments::{CheckErrors, CheckStep, Slots, boxed, zero_field};
use crate::eval;
use crate::schema::{
    Absent, BlockAbsent, BlockType, Body, Field, FieldKind, Overrides, Schema, Slot, Stability, TypeInfo, override_of,
};

/// A struct in the making.
pub(crate) struct Frame {
    pub(crate) schema: &'static Schema,
    overrides: Vec<&'static [(&'static str, &'static str)]>,
    pub(crate) fields: Vec<FieldState>,
}

/// A field of a struct in the making.
#[derive(Default)]
pub(crate) struct FieldState {
    /// Its value, once it is known.
    pub(crate) slot: Option<Slot>,
    /// Where the user wrote it first; an empty place where there is no text.
    pub(crate) written: Option<Span>,
    /// It has an error, or a value that is not known.
    pub(crate) unknown: bool,
    /// The blocks of it, with the number of the variant: those with errors or unknown values have none.
    pub(crate) blocks: Vec<(usize, Option<Slot>)>,
    /// The struct that is flattened here.
    nested: Option<Box<Frame>>,
}

/// What a name of a body stands for.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) field: &'static Field,
    /// The variant, where it is the block of a group.
    pub(crate) variant: Option<usize>,
}

/// What is wrong with a struct as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An attribute that is required was not written.
    MissingAttr(&'static str),
    /// A block that is required was not written.
    MissingBlock(&'static str),
    /// A rule between fields does not hold.
    Rule {
        /// The text.
        message: String,
        /// Where the user wrote a field that it reads.
        place: Option<Span>,
        /// The first field that it reads, and the way to a place inside it.
        within: Option<(&'static str, Vec<CheckStep>)>,
        /// Whether the reference looks at it when it builds the component.
        building: bool,
    },
    /// The table itself is wrong.
    Defect(String),
}

impl Fault {
    /// The text, as the reference has it.
    pub(crate) fn message(&self) -> String {
        match self {
            Fault::MissingAttr(name) => format!("missing required attribute {}", corten_syntax::quote(name)),
            Fault::MissingBlock(name) => format!("missing required block {}", corten_syntax::quote(name)),
            Fault::Rule { message, .. } | Fault::Defect(message) => message.clone(),
        }
    }
}

impl Frame {
    /// With nothing in it.
    pub(crate) fn new(schema: &'static Schema, overrides: Overrides<'_>) -> Self {
        let field = |field: &Field| FieldState {
            nested: match field.kind {
                FieldKind::Flatten { schema, defaults } => {
                    let overrides: Vec<_> = overrides.iter().copied().chain([defaults]).collect();
                    Some(Box::new(Frame::new(schema(), &overrides)))
                }
                _ => None,
            },
            ..FieldState::default()
        };
        Frame { schema, overrides: overrides.to_vec(), fields: schema.fields.iter().map(field).collect() }
    }

    /// What a name stands for, and its state.
    pub(crate) fn find(&mut self, name: &str) -> Option<(Found, &mut FieldState)> {
        for (field, state) in self.schema.fields.iter().zip(&mut self.fields) {
            match field.kind {
                FieldKind::Label => {}
                FieldKind::Attr { .. } | FieldKind::Block { .. } => {
                    if field.name == name {
                        return Some((Found { field, variant: None }, state));
                    }
                }
                FieldKind::Flatten { .. } => {
                    if let Some(found) = state.nested.as_mut().and_then(|nested| nested.find(name)) {
                        return Some(found);
                    }
                }
                FieldKind::Group { prefix, group } => {
                    let rest = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
                    let variant = rest.and_then(|rest| (group.one_of)().variants.iter().position(|v| v.name == rest));
                    if variant.is_some() {
                        return Some((Found { field, variant }, state));
                    }
                }
            }
        }
        None
    }

    /// Gives the struct its label.
    pub(crate) fn set_label(&mut self, label: &str) {
        if let Some(index) = self.schema.label() {
            self.fields[index].slot = Some(boxed(label.to_owned()));
        }
    }

    /// Fills in what was not written, makes the struct and checks its rules. Adds what is wrong to the faults, and says
    /// whether all of the struct is known.
    ///
    /// Nothing comes back when a field is neither known nor has a zero value that could stand for it.
    pub(crate) fn finish(
        &mut self,
        required: Required,
        minimum: Stability,
        faults: &mut Vec<Fault>,
    ) -> (Option<Slot>, bool) {
        let mut slots = Slots::empty(self.schema);
        for (index, field) in self.schema.fields.iter().enumerate() {
            let slot = self.finish_field(index, required, minimum, faults);
            if slot.is_none() {
                self.fields[index].unknown = true;
            }
            // What is unknown is zero for the time being, so that the rules that do not read it can be checked.
            slots.set(index, slot.or_else(|| zero_field(&field.kind)));
        }
        let known = !self.fields.iter().any(|field| field.unknown);
        let slot = (self.schema.ops.assemble)(&mut slots);
        if let Some(slot) = &slot {
            let rules =
                [((self.schema.ops.check)(&**slot), false), ((self.schema.ops.check_build)(&**slot, minimum), true)];
            for (errors, building) in rules {
                self.broken_rules(errors, known, building, faults);
            }
        }
        (slot, known)
    }

    /// Adds the rules that do not hold, of those that read nothing unknown.
    fn broken_rules(&self, errors: Result<(), CheckErrors>, known: bool, building: bool, faults: &mut Vec<Fault>) {
        for error in errors.err().into_iter().flatten() {
            let readable = match error.fields.as_slice() {
                [] => known,
                fields => !fields.iter().any(|name| self.is_unknown(name)),
            };
            if readable {
                let place = error.fields.iter().find_map(|name| self.place(name));
                let first = error.fields.first().filter(|_| !error.within.is_empty());
                let within = first.map(|field| (*field, error.within));
                faults.push(Fault::Rule { message: error.message, place, within, building });
            }
        }
    }

    fn finish_field(
        &mut self,
        index: usize,
        required: Required,
        minimum: Stability,
        faults: &mut Vec<Fault>,
    ) -> Option<Slot> {
        let field = &self.schema.fields[index];
        let state = &mut self.fields[index];
        match field.kind {
            FieldKind::Label => state.slot.take().or_else(|| zero_field(&field.kind)),
            FieldKind::Attr { ty, absent } => {
                if state.written.is_some() {
                    return state.slot.take();
                }
                let absent = override_of(&self.overrides, field.name).map_or(absent, Absent::Literal);
                if let (Absent::Refused, Required::Enforced) = (absent, required) {
                    faults.push(Fault::MissingAttr(field.name));
                    return None;
                }
                absent_attr(ty, absent).unwrap_or_else(|error| {
                    let name = corten_syntax::quote(field.name);
                    faults.push(Fault::Defect(format!("default of {name}: {error}")));
                    None
                })
            }
            FieldKind::Block { block, absent, defaults } => {
                if state.written.is_some() {
                    let blocks: Option<Vec<Slot>> = state.blocks.drain(..).map(|(_, slot)| slot).collect();
                    return if state.unknown { None } else { (block.collect)(blocks?) };
                }
                if let (BlockAbsent::Refused, Required::Enforced) = (absent, required) {
                    faults.push(Fault::MissingBlock(field.name));
                    return None;
                }
                absent_block(block, absent, defaults)
            }
            FieldKind::Group { group, .. } => {
                let blocks = state.blocks.drain(..).map(|(variant, slot)| Some((variant, slot?)));
                let blocks = blocks.collect::<Option<Vec<(usize, Slot)>>>();
                if state.unknown { None } else { (group.collect)(blocks?) }
            }
            FieldKind::Flatten { .. } => {
                let (slot, known) = state.nested.as_mut()?.finish(required, minimum, faults);
                state.unknown |= !known;
                slot
            }
        }
    }

    /// Whether a field that a rule reads is not known. What is not there at all is none that a rule could read: then
    /// the rule waits until everything is known.
    fn is_unknown(&self, name: &str) -> bool {
        match self.state(name) {
            Some(state) => state.unknown,
            None => self.fields.iter().any(|field| field.unknown),
        }
    }

    fn place(&self, name: &str) -> Option<Span> {
        self.state(name)?.written
    }

    /// The state of a field that a rule names: an attribute, a block, or a group by its prefix.
    fn state(&self, name: &str) -> Option<&FieldState> {
        self.schema.fields.iter().zip(&self.fields).find_map(|(field, state)| match field.kind {
            FieldKind::Flatten { .. } => state.nested.as_ref()?.state(name),
            FieldKind::Group { prefix, .. } => (prefix == name).then_some(state),
            _ => (field.name == name).then_some(state),
        })
    }
}

/// Whether what is required must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Required {
    /// Its absence is a fault.
    Enforced,
    /// Its zero value stands for it, as in objects at run time.
    Lenient,
}

/// The value of an attribute that was not written.
fn absent_attr(ty: &TypeInfo, absent: Absent) -> Result<Option<Slot>, String> {
    match absent {
        Absent::Refused | Absent::Zero => Ok((ty.zero)()),
        Absent::Literal(text) => default_value(ty, text).map(Some),
        Absent::Computed { make, .. } => Ok(Some(make())),
    }
}

/// The value of a block that was not written.
fn absent_block(
    block: &BlockType,
    absent: BlockAbsent,
    defaults: &'static [(&'static str, &'static str)],
) -> Option<Slot> {
    match absent {
        BlockAbsent::Refused | BlockAbsent::Zero => (block.zero)(),
        BlockAbsent::Defaults => default_block(block, defaults),
        BlockAbsent::Computed { make, .. } => Some(make()),
    }
}

/// A field of one block with nothing in it.
pub(crate) fn default_block(block: &BlockType, defaults: &'static [(&'static str, &'static str)]) -> Option<Slot> {
    let contents = match block.body {
        Body::Struct(schema) => default_record(schema(), &[defaults])?,
        Body::Map { collect, .. } => collect(Vec::new())?,
    };
    (block.collect)(vec![contents])
}

/// A struct with its defaults. What is required is zero in it.
pub(crate) fn default_record(schema: &'static Schema, overrides: Overrides<'_>) -> Option<Slot> {
    // The rules between fields are for what the user writes.
    Frame::new(schema, overrides).finish(Required::Lenient, Stability::Experimental, &mut Vec::new()).0
}

/// A default that is a literal, decoded as the user's own text would be.
///
/// # Errors
/// What is wrong with it, which is a defect of the table.
pub(crate) fn default_value(ty: &TypeInfo, text: &str) -> Result<Slot, String> {
    let expression = parse_expression("", text);
    let (source, expr) = (expression.source.clone(), expression.into_result().map_err(|errors| errors.to_string())?);
    let value = eval::evaluate(&source, &expr, &()).map_err(|error| error.to_string())?;
    let cx = ValueContext { minimum: Stability::Experimental, checking: true };
    (ty.decode)(&value, &cx).map_err(|errors| errors.to_string())
}
