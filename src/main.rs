//! The `larder` program: arguments, runtime, exit code.

fn main() {}
