//! One binary for every test that crosses an edge.
