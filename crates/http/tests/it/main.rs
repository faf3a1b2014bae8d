//! The API over a controller with components of its own, asked within the process.

mod components;
mod server;
mod support;
