//! What to do next, from what is known. Pure: no clock, no randomness, no IO; the broker asks and then acts.

pub(super) use self::{
    ahead::ahead,
    extent::{Bounds, Extent, extent},
    fate::{Circumstances, Fate, fate},
    plan::{Plan, may_replace_ahead, plan, spare},
    report::{ReportPlan, age, damp, refused, report},
    revival::is_revival_due,
};

mod ahead;
mod extent;
mod fate;
#[cfg(test)]
mod interleavings;
mod plan;
mod report;
mod revival;
#[cfg(test)]
pub(super) mod samples;
