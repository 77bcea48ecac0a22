//! The tests of bearerd from the outside, in one binary. A line of purpose for each module.
