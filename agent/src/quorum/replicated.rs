//! The cluster's state as what the quorum replicates.

use super::machine::Replicated;
use crate::cluster::{
    entry::Entry,
    ids::{Incarnation, Index, VoterId},
    state::State,
};

impl Replicated for State {
    fn apply(&mut self, index: Index, entry: &Entry) -> Result<(), String> {
        State::apply(self, index, entry).map(drop).map_err(|refusal| refusal.to_string())
    }

    fn incarnation(&self, voter: VoterId) -> Incarnation {
        State::incarnation(self, voter).unwrap_or(0)
    }
}
