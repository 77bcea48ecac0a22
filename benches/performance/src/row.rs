//! One line of a table: a figure of ours, the one beside it, their ratio, and whether that is what we want.

use crate::pair::Pair;

/// The middle and the ends of some measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The middle one; the mean of two where there is no middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// What they are counted in; empty for a ratio.
    pub unit: &'static str,
    /// How many measurements there were.
    pub of: usize,
}

impl Figure {
    /// Of these measurements; zero of none.
    pub fn of(mut measurements: Vec<f64>, unit: &'static str) -> Self {
        measurements.sort_by(f64::total_cmp);
        let at = |index: usize| measurements.get(index).copied().unwrap_or_default();
        let of = measurements.len();
        let last = of.saturating_sub(1);
        Self { median: f64::midpoint(at(last / 2), at(last.div_ceil(2))), min: at(0), max: at(last), unit, of }
    }

    /// Of something that comes out the same each time.
    pub fn exactly(value: f64, unit: &'static str) -> Self {
        Self { median: value, min: value, max: value, unit, of: 1 }
    }
}

/// What a ratio must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Goal {
    /// Whether a ratio is what is wanted.
    pub fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }
}

/// The other side of a line.
#[derive(Clone, Debug)]
pub struct Beside {
    /// What it is.
    pub name: String,
    /// Its figure.
    pub figure: Figure,
    /// Ours divided by it.
    pub ratio: Figure,
}

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// bearerd's figure.
    pub ours: Figure,
    /// What it is measured against; some figures stand alone.
    pub beside: Option<Beside>,
    /// What the ratio must be, where something is promised.
    pub goal: Option<Goal>,
    /// Why nothing follows from the ratio.
    pub doubt: Option<&'static str>,
}

impl Row {
    /// Out of pairs. The ratio is the median of the pairs' ratios: both sides of a pair had the same minute.
    pub fn of<T>(what: &str, peer: &str, pairs: &[Pair<T>], unit: &'static str, value: impl Fn(&T) -> f64) -> Self {
        let figure = |side: &dyn Fn(&Pair<T>) -> f64, unit| Figure::of(pairs.iter().map(side).collect(), unit);
        let ours = figure(&|pair| value(&pair.ours), unit);
        let theirs = figure(&|pair| value(&pair.theirs), unit);
        let ratio = figure(&|pair| value(&pair.ours) / value(&pair.theirs), "");
        let beside = Some(Beside { name: peer.to_owned(), figure: theirs, ratio });
        Self { beside, ..Self::alone(what, ours) }
    }

    /// A figure that stands alone.
    pub fn alone(what: &str, ours: Figure) -> Self {
        Self { what: what.to_owned(), ours, beside: None, goal: None, doubt: None }
    }

    /// The same with a goal.
    pub fn with_goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// The same, in doubt if there is a reason.
    pub fn doubted(self, doubt: Option<&'static str>) -> Self {
        Self { doubt, ..self }
    }

    /// All figures of the line.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        let beside = self.beside.iter().flat_map(|beside| [&beside.figure, &beside.ratio]);
        [&self.ours].into_iter().chain(beside)
    }

    /// Whether the goal is met, where there is one.
    pub fn is_met(&self) -> Option<bool> {
        Some(self.goal?.is_met(self.beside.as_ref()?.ratio.median))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_a_middle_and_ends() {
        for (measurements, median, min, max) in [
            (vec![], 0.0, 0.0, 0.0),
            (vec![7.0], 7.0, 7.0, 7.0),
            (vec![9.0, 1.0, 4.0], 4.0, 1.0, 9.0),
            (vec![9.0, 1.0, 4.0, 5.0], 4.5, 1.0, 9.0),
        ] {
            let expected = Figure { median, min, max, unit: "µs", of: measurements.len() };
            assert_eq!(Figure::of(measurements, "µs"), expected);
        }
    }

    #[test]
    fn the_ratio_is_that_of_pairs_and_not_of_medians() {
        let pairs = [(10.0, 5.0), (40.0, 10.0), (90.0, 30.0)].map(|(ours, theirs)| Pair { ours, theirs });
        let row = Row::of("", "", &pairs, "/s", |value| *value);
        let ratio = row.beside.as_ref().unwrap().ratio;
        assert_eq!((row.ours.median, ratio.median, ratio.min, ratio.max), (40.0, 3.0, 2.0, 4.0));
        for (goal, met) in [
            (Goal::AtLeast(3.0), true),
            (Goal::AtLeast(3.1), false),
            (Goal::AtMost(3.0), true),
            (Goal::AtMost(2.9), false),
        ] {
            assert_eq!(row.clone().with_goal(goal).is_met(), Some(met), "{goal:?}");
        }
        assert_eq!(row.is_met(), None);
    }
}
