//! The compare-and-set of every entry: what it changes, and each refusal.
