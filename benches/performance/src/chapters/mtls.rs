//! The same as `cached`, with mutual TLS on both sides and the same certificates.

use super::cached::measured;
use crate::{
    bench::Bench,
    error::Error,
    parts::certificates::Certificates,
    row::{Goal, Row},
};

/// The table.
pub fn run(bench: &Bench) -> Result<Vec<Row>, Error> {
    let certificates = Certificates::make(&bench.scratch().join("certificates"))?;
    let [rate, rest @ ..] = measured(bench, Some(&certificates))?;
    Ok([rate.with_goal(Goal::AtLeast(0.95))].into_iter().chain(rest).collect())
}
