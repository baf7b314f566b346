//! Process 1 of a guest of the lab: `cargo xtask vm` puts it there.

fn main() -> anyhow::Result<()> {
    baton_lab::vm::init::main()
}
