//! The command line.

mod thin;

fn main() {
    thin::main();
}
