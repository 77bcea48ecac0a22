//! Who calls.

use std::fmt;

/// A caller, as far as it has shown who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Somebody on this machine, over the loopback interface.
    Local,
    /// Somebody elsewhere who has shown no proof.
    Anonymous,
}

impl Caller {
    /// The name that policy rows match.
    pub fn name(&self) -> &str {
        match self {
            Self::Local => "local",
            Self::Anonymous => "anonymous",
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
