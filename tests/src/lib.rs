//! Shared rigs of the integration tests.
