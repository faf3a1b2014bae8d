//! What tests of components need: the world around a component with everything faked that can be, a runtime that is
//! driven by text, waiting for conditions, and a server that remembers what it was asked.
//!
//! - [`Unit`] is one component in a [`World`]: `let unit = Unit::start(world, definition, "filename = ...").await?`.
//! - [`load`] runs a whole configuration with a real controller: `let pipeline = load(text, &[COMPONENTS]).await?`.
//! - [`until`] waits for a condition, never for time.
//! - [`LogsSink`] keeps the log entries that it is sent, [`OtlpSink`] the telemetry.
//! - [`Fickle`] refuses, hangs and panics, as receivers may.
//! - [`Server`] answers HTTP on loopback, and at an [`unused_address`] nobody does.
//! - [`kubernetes`] has a cluster whose objects can be listed and watched.
//! - [`peers`] finds programs that are not ours.
//! - [`components`] has two components, for tests of what surrounds components.
//!
//! A mistake in a test ends it: everything here panics rather than return what only a test's author can put right.

mod address;
pub mod components;
mod fickle;
pub mod kubernetes;
mod logs;
mod otlp;
pub mod peers;
mod pipeline;
mod server;
mod wait;
mod world;

pub use address::unused_address;
pub use fickle::{Deed, Fickle};
pub use logs::{LogLine, LogsSink, awaited_logs, log_lines, logs};
pub use otlp::{Arrived, OtlpSink, otlp};
pub use pipeline::{Pipeline, load, load_in};
pub use server::{Seen, Server, answer};
pub use wait::{stays, until, until_some};
pub use world::{Metrics, Unit, World, host, labels};
