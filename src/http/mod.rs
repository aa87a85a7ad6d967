//! Rules of HTTP that are not Pingora's; each file names its RFC.

pub mod host;
pub mod ip_set;
