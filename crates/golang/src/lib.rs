//! What users of configurations meet of the Go programming language: layouts of times, and templates with their functions.

mod csv;
mod functions;
pub mod json;
pub mod logfmt;
mod numbers;
pub mod template;
mod text;
pub mod time;

pub use csv::row as csv_row;
pub use functions::{QueryPair, UrlParts, parse_query, parse_request_uri, parse_url};
pub use numbers::{NumberError, parse_float, parse_int};
pub use text::{hex, map, push_hex, split_quoted, to_lower, to_upper, unquote_literal as unquote};
