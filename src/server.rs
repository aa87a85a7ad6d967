//! Composition root: builds every room from the bootstrap configuration; owns shutdown.
