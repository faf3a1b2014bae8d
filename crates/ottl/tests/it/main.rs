//! Statements, conditions and expressions against what the collector made of them.

mod allocations;
mod hostile;
mod recorded;
