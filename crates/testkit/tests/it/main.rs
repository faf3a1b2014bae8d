//! What `cargo xtask new` writes, compiled and tested as it is written.

// A component is public to whoever lists the family's; here nobody does.
#[allow(unreachable_pub)]
mod skeleton;
