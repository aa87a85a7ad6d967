//! Rules of HTTP that are not Pingora's; each file names its RFC.

pub mod client_addr;
pub mod cookie;
pub mod hop_by_hop;
pub mod host;
pub mod host_name;
pub mod lookalike;
pub mod loose_base64;
pub mod path;
pub mod proxy_protocol;
pub mod query;
pub mod request_guard;
