//! A scope's plugins, built and sorted: global rules, a route's merged set, a consumer's.
pub struct Chain;
pub struct ChainConfig;
