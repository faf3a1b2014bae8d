//! The derives behind a component's arguments and exports.
//!
//! A derive writes tables and functions of one expression; what walks the tables is in `corten_config` and is compiled
//! once. What a field may say is described at [`macro@Arguments`].

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

mod attributes;
mod exports;
mod literal;
mod one_of;
mod record;
mod string_enum;
#[cfg(test)]
mod tests;

/// Derives decoding, defaults, schema and documentation of a component's arguments, of a block or of an object.
///
/// On a struct each field is an attribute of the language unless it says otherwise. The doc comment of a field is the
/// user's reference: a field without one does not compile. What a field may say:
///
/// - `#[arg(...)]`, an attribute. It is required, unless its type is `Option` or it has one of
///   - `default = 10`, `default = "15s"`, `default = ["a"]`: a literal of the user's language;
///   - `default_with = path, default_text = "number of cores"`: what `fn path() -> Type` returns;
///   - `optional`: the zero value of the type.
/// - `#[block(...)]`, a block: required on a plain type, may be absent on `Option`, repeats on `Vec`, stands exactly
///   `N` times on `[T; N]`, and takes any attributes on `BTreeMap<String, T>`.
///   - `default`: absent, it has the defaults of its type; `default_with = path`: what `path` returns;
///     `optional`: the zero value of its type;
///   - `required` on `Vec`: at least one;
///   - `defaults(endpoint = "0.0.0.0:4317")`: other defaults for attributes of the block's type at this place;
///   - `group = "stage"` on a `Vec` of an enum: the blocks `stage.json`, `stage.regex`, … in textual order.
/// - `#[flatten]`, or `#[flatten(defaults(...))]`: the fields of another struct, as if they stood here.
/// - `#[label]` on a `String`: the label of the block. Without such a field the block takes none.
///
/// `arg` and `block` also take `name = "..."` (otherwise the field's name), `stability = experimental` or
/// `public_preview`, and `deprecated = "use ... instead"`.
///
/// On an enum each variant holds the arguments of one block of a group, or nothing; `#[block(...)]` on a variant takes
/// `name` (otherwise the variant's in snake case), `stability` and `deprecated`.
///
/// A method `fn check(&self) -> Result<(), CheckErrors>` of the type, if there is one, holds the rules between its
/// fields: it is found by its name. So is `fn check_build(&self, minimum: Stability) -> Result<(), CheckErrors>`, for rules
/// that the reference looks at only when it builds the component, so that at run time the text of the error says
/// `building component`, and for those that depend on the level of stability that the user allows.
#[proc_macro_derive(Arguments, attributes(arg, block, flatten, label))]
pub fn arguments(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    record::arguments(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Derives schema, documentation and conversion to a value of a component's exports.
///
/// Each field has a doc comment. `#[export(...)]` takes `name`, `stability` and `deprecated`. Of an optional secret
/// `secret_if = "is_secret"` names the argument that says whether it is secret, so that a check which does not run the
/// component knows it.
#[proc_macro_derive(Exports, attributes(export))]
pub fn exports(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    exports::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Derives decoding from text of an enum of words, `action = "replace"`.
///
/// Each variant is a word with a doc comment: its name in snake case, or `#[value(name = "...")]`. `#[value(zero)]`
/// marks the one that `null` stands for, otherwise the first; `#[value(stability = ...)]` gates one.
/// On the enum, `#[string_enum(refusal = path)]` names the `fn(&str) -> String` that words the error for anything else, and
/// `#[string_enum(ignore_case)]` reads all spellings.
#[proc_macro_derive(StringEnum, attributes(string_enum, value))]
pub fn string_enum(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    string_enum::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
