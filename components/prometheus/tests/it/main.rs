//! Tests of the components as their users meet them: with a network, a disk and a configuration.

mod collect;
mod remote_write;
mod scrape;
