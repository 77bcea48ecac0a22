//! The tests of bearerd from the outside, in one binary. A line of purpose for each module.

// `ARCHITECTURE.md` and `src` say the same about rooms, arrows and boundaries.
mod architecture;
