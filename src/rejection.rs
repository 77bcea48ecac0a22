//! What does an upstream's refusal mean? Pure.

pub mod challenge;
