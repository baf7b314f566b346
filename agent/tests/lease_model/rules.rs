//! The switches: each names one rule of the quorum lease, and what the model does without it.

/// A rule that the model can leave out. All of them hold unless one is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Rule 1: a lease counts from the departure of the beat. Without: from the arrival of the acknowledgement.
    DepartureStamp,
    /// Rule 1: a finite floor refuses a beat whose gate index is below it. Without: only an infinite floor refuses.
    FloorChecksIndex,
    /// Rule 1: a beat carries the index that the gate reflects. Without: the one that the agent has applied.
    BeatCarriesGateIndex,
    /// Rule 2: the hold. Without: a voter promises at once.
    Hold,
    /// Rule 2: the hold is longer than the lease by the bound on drift. Without: it is as long as the lease.
    HoldCoversDrift,
    /// Rule 3: a conclusion needs the promises of a majority. Without: one is enough.
    Promise,
    /// Rule 3: a promise raises the floor to infinity. Without: the floor stays.
    PromiseRaisesFloor,
    /// Rule 3: the agent reads R after it has raised the floor. Without: before.
    ReadAfterFloor,
    /// Rule 3: the program checks the floor again after the exchange of R. Without: only before.
    SecondFloorCheck,
    /// Rule 3: the program exchanges R before it answers. Without: after.
    ExchangeBeforeAnswer,
    /// Rule 4: a conclusion names the last one about the node. Without: any promise counts, however old.
    PromiseIndex,
    /// Rule 4: a promise counts in the incarnation that gave it. Without: in any.
    PromiseIncarnation,
    /// Rule 4: a step of a move is a compare-and-set on (epoch, move, step). Without: it applies whatever came between.
    MoveCompareAndSet,
    /// Rule 4: `diverted` counts in the incarnation that closed the gate. Without: in any.
    DivertedIncarnation,
    /// Rule 5: a voter whose maps are gone starts with infinite floors. Without: with floors of zero.
    FloorAfterRestart,
    /// Rule 5: the barrier. Without: a voter goes on from its log at once, under its old incarnation.
    Barrier,
    /// Rule 5: holds start at the barrier. Without: a voter that forgot R promises right after its barrier.
    HoldAfterBarrier,
    /// Rule 5: a node opens its gate only when the gate reflects its barrier. Without: as soon as its log names it.
    OwnerBarrier,
    /// Rule 6: the gate is closed before the release is proposed. Without: when the release is applied.
    CloseBeforeRelease,
    /// Rule 6: a release counts in the incarnation that closed the gate. Without: in any.
    ReleaseIncarnation,
    /// Rule 7: the owner closes its gate before it proposes `diverted`. Without: when `diverted` is applied.
    CloseBeforeDiverted,
    /// Rule 8: a release is for an epoch. Without: for whatever epoch the node owns when it commits.
    RolesByEpoch,
}
