//! What the sinks share: a lane that joins what comes in into records of the queue, and senders that deliver what the queue
//! holds.
//!
//! It knows no signal and no encoding: what a record is made of is a [`Group`]'s, and what a request and its answer mean is a
//! [`Protocol`]'s.

mod client;
mod departing;
mod end;
mod failing;
mod lane;
mod open;
mod pace;
mod sender;

pub use client::client_options;
pub use departing::{Departing, FLUSH_WAIT_MAX, Leaving, finished, leave_lane};
pub use end::{Ends, LaneBooks, QueueEnd};
pub use failing::Failing;
pub use lane::{Group, JOIN_WAIT, Lane, OnTooLarge, RAW_BYTES_MAX};
pub use open::open_queue;
pub use pace::Pace;
pub use sender::{BACKOFF_MIN, Event, Lost, Protocol, SendSettings, SendState, Sender, Verdict, points, totals_of};
