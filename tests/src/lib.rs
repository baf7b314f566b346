//! The lab: clusters of network namespaces for tests, demo and benches.
