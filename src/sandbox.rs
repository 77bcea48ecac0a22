//! The provider and the API that `demo` and tests play against; the service never imports it.
