//! The `baton` command line: parse and dispatch only.

fn main() {}
