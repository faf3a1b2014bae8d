//! What a queue keeps when its process is killed.

mod kill;
