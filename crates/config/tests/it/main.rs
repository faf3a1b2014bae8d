//! Decoding, encoding, schema and static checks, as component authors see them.

mod capsules;
mod conversion;

mod example;

mod structs;
mod support;

mod encoding;
mod properties;
mod statics;
mod tables;
