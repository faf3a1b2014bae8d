//! The server over a real controller, asked as clients ask it.

mod api;
mod assets;
mod components;
mod server;
mod support;
