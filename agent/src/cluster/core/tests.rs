//! Scenarios: three cores run by hand.
