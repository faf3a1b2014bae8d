//! What a component is, and what it has of the world around it.
//!
//! This crate knows no component and nothing of scopes, graphs and reloads: those are the runtime's.

pub mod context;
pub mod definition;
pub mod forward;
pub mod health;
pub mod listen;
pub mod local_end;
pub mod log;
pub mod metrics;
pub mod secrets;
pub mod size;
pub mod targets;
pub mod task;
pub mod trace;
pub mod turn;
pub mod url;

pub use context::{Context, DebugInfo, Host, HttpHandler, Ownership, ServerSettings, Services};
pub use definition::{Component, Definition, Driver, Error};
pub use forward::Forward;
pub use health::{Health, HealthBoard, HealthState};
pub use local_end::LocalEnd;
pub use log::{Field, Logger};
pub use secrets::SecretBook;
pub use task::{Stop, Task};
pub use turn::Turn;
pub use url::Url;
