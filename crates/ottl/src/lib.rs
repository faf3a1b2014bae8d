//! The OpenTelemetry Transformation Language, over decoded telemetry.
//!
//! Statements, conditions and expressions are read, checked and compiled when they are loaded: names of paths, functions
//! and enums, the number and types of arguments, patterns and formats. A compiled statement is executed for one [`Item`]
//! after the other; what a condition reads and compares is not copied.

mod ast;
mod check;
mod code_pages;
mod context;
mod error;
mod functions;
mod grok;
mod hash;
mod item;
mod json;
mod parse;
mod path;
mod program;
mod strcase;
mod token;
mod trace_state;
mod user_agent;
mod value;
mod walk;
mod xml;

pub use check::{compile_conditions, compile_statements, compile_value, infer_conditions, infer_statements};
pub use context::Context;
pub use error::{EvalError, OttlError, Part};
pub use item::{Item, Record};
pub use parse::{NESTING_MAX, OPERATORS_MAX, SOURCE_BYTES_MAX};
pub use program::{Condition, Conditions, Expression, Program, Statement};
pub use trace_state::parse as parse_trace_state;
pub use value::Val;
pub use walk::{Sifted, Walk, for_each, for_each_of, sift};
