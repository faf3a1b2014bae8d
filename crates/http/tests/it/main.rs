//! The API over a controller with the components of the test kit, asked within the process.

mod server;
mod support;
