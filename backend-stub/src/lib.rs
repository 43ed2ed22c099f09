//! The reference backend, and the library that a backend team builds on.
