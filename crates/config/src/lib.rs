//! Values, evaluation, the standard library, and decoding into Rust types.
//!
//! This crate knows no component: what components hand to each other is opaque to it ([`value::Capsule`]).

// The derives name this crate as others see it, and are used within it as well.
extern crate self as corten_config;

pub mod arguments;
pub mod convert;
pub mod decode;
pub mod duration;
pub mod encode;
pub mod error;
pub mod eval;
pub mod gofmt;
pub mod limits;
mod literal;
mod number;
pub mod ops;
pub mod render;
pub mod schema;
pub mod stdlib;
pub mod unknown;
pub mod value;

// A trait and its derive have one name, so that one import brings both.
pub use arguments::{Arguments, CheckErrors, Exports, StringEnum};
pub use corten_config_derive::{Arguments, Exports, StringEnum};
pub use value::Value;
