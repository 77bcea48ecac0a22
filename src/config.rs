//! The configuration: file, secrets and environment in, checked values out.
