//! What users of configurations meet of the Go programming language: layouts of times, and templates with their functions.

mod functions;
mod numbers;
pub mod template;
mod text;
pub mod time;
