//! Asks a directory over LDAP (RFC 4511): whether a password is a user's, and which entry a name
//! belongs to. Knows no request and no consumer; never logs, and no error holds a name or password.

mod ber;
mod connection;
mod directory;
mod dn;
mod message;
mod tls;

pub use directory::{Directory, Keepalive, Lookup, Service, Settings};
pub use dn::{canonical, escape_value, is_attribute};
pub use tls::{Security, TlsSettings};

/// Why a question to a directory has no good answer. Holds neither names nor passwords.
#[derive(Debug, thiserror::Error)]
pub enum LdapError {
    /// No connection.
    #[error("the directory cannot be reached")]
    Connect(#[source] std::io::Error),
    /// The directory's certificate is not trusted, or it does not speak TLS.
    #[error("the TLS handshake with the directory failed: {0}")]
    Tls(String),
    /// It would not speak TLS on this connection.
    #[error("the directory refuses StartTLS with result code {0}")]
    StartTls(u32),
    /// The connection ended before the answer.
    #[error("the directory closed the connection")]
    Closed(#[source] std::io::Error),
    /// The answer is not one LDAP allows here, or larger than any that is awaited.
    #[error("the directory's answer cannot be read")]
    Protocol,
    /// No answer in time.
    #[error("the directory does not answer in time")]
    Timeout,
    /// So many questions wait that this one is not asked.
    #[error("too many questions wait for the directory")]
    Busy,
    /// The gateway's own name or password is refused.
    #[error("the directory refuses the search's own bind with result code {0}")]
    Service(u32),
    /// The search failed.
    #[error("the directory refuses the search with result code {0}")]
    Search(u32),
    /// The user's name or password is refused.
    #[error("the directory refuses the user's bind with result code {0}")]
    Bind(u32),
    /// No entry has this name.
    #[error("the directory has no such user")]
    NoSuchUser,
    /// Several entries have this name.
    #[error("the directory has several such users")]
    Ambiguous,
}

impl LdapError {
    /// The directory answered what was asked, if only with a refusal of the user.
    pub(crate) const fn is_answer(&self) -> bool {
        matches!(self, Self::NoSuchUser | Self::Ambiguous | Self::Bind(_))
    }

    /// The directory said that name and password do not belong together, or that it does not
    /// know the name. Everything else is the directory's trouble, or ours.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::NoSuchUser | Self::Ambiguous | Self::Bind(INVALID_CREDENTIALS)
        )
    }
}

/// Result code of a bind whose name or password is wrong.
const INVALID_CREDENTIALS: u32 = 49;
