//! Limits on what an expression may make, so that no configuration can exhaust the memory or the stack.

/// The largest text that an expression or a function may make, in bytes.
pub const TEXT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most elements that a function may put in an array.
pub const ITEMS_MAX: usize = 1_000_000;

/// How deep arrays and objects read from JSON or YAML may be nested.
pub const NESTING_MAX: usize = 500;

/// How deep expressions may be nested. The parser allows no more, and this guards trees that are not from it.
pub const EXPRESSION_DEPTH_MAX: usize = corten_syntax::DEPTH_MAX + 8;
