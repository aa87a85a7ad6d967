//! One `ssls` item with its values at hand → what its names present. Pure; `snapshot::compile`
//! calls it and keeps the outcome, so that the next call knows which pairs served.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::certificate::{CaBundle, CertificateError, CertifiedKey};
use super::client_auth::ClientAuth;
use super::pair::{Newest, PairError, choose_pair};
use super::policy::{Protocols, TlsPolicy};
use super::sni_store::TlsIdentity;
use crate::config::resource::SslConfig;
use crate::config::resource::ssl::SslClientConfig;
use crate::diagnostic::Severity;
use crate::secrets::Secret;

/// What turns an item into an identity.
pub struct ItemInput<'a> {
    /// Id of the item.
    pub id: &'a Arc<str>,
    /// Its declaration.
    pub config: &'a SslConfig,
    /// Values of `config.pairs`, in order: (chain, key), or why one has none.
    pub values: &'a [(Value, Value)],
    /// Value of `config.client.ca`; ignored where `client` is absent.
    pub client_ca: Option<&'a Value>,
    /// `apisix.ssl.ssl_protocols`, for items without their own.
    pub protocols: Protocols,
    /// Pairs that served before, by position; empty at first.
    pub served: &'a [Option<Arc<CertifiedKey>>],
    /// Now.
    pub now: SystemTime,
    /// How long before its end a certificate deserves a warning.
    pub notice: Duration,
}

/// A value of a reference (or literal text), or why there is none.
pub type Value = Result<Arc<Secret>, Box<str>>;

/// Something to say about an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemFinding {
    /// Whether something refuses.
    pub severity: Severity,
    /// Stable word for the kind of finding.
    pub code: &'static str,
    /// Dotted path inside the item.
    pub field: Box<str>,
    /// What was expected; holds no value.
    pub message: Box<str>,
}

/// What an item became.
pub struct Built {
    /// What its names present.
    pub identity: TlsIdentity,
    /// By position: what serves, to be passed as `served` next time.
    pub pairs: Vec<Option<Arc<CertifiedKey>>>,
    /// What should be said.
    pub findings: Vec<ItemFinding>,
}

/// Builds the identity of an item. Serves with the pairs that can serve, and refuses when none
/// can, when its protocols are unknown, or when its client authentication cannot be enforced.
#[must_use]
pub fn build_identity(input: &ItemInput<'_>) -> Built {
    let mut findings = Vec::new();
    let pairs = choose_pairs(input, &mut findings);
    let id = input.id.clone();
    let identity = match policy(input) {
        Ok(policy) => {
            let serving: Vec<_> = pairs.iter().flatten().cloned().collect();
            if serving.is_empty() {
                TlsIdentity::refused(id, "no usable certificate", policy)
            } else {
                TlsIdentity::serving(id, serving, policy)
            }
        }
        Err(finding) => {
            let reason = finding.message.clone();
            findings.push(finding);
            // Refused before the policy could matter.
            TlsIdentity::refused(id, reason, TlsPolicy::new("", input.protocols, None, 0))
        }
    };
    Built {
        identity,
        pairs,
        findings,
    }
}

fn choose_pairs(
    input: &ItemInput<'_>,
    findings: &mut Vec<ItemFinding>,
) -> Vec<Option<Arc<CertifiedKey>>> {
    let mut pairs = Vec::with_capacity(input.values.len());
    for (position, (cert, key)) in input.values.iter().enumerate() {
        let (cert_field, key_field) = fields(position);
        let (newest, missing) = match (cert, key) {
            (Ok(cert), Ok(key)) => (Newest::Values { cert, key }, ""),
            (Err(reason), _) => (Newest::Missing { reason }, &*cert_field),
            (_, Err(reason)) => (Newest::Missing { reason }, &*key_field),
        };
        let served = input.served.get(position).and_then(Option::as_ref);
        let choice = choose_pair(newest, served, input.now);
        if let Some(error) = choice.finding {
            let field = match &error {
                PairError::Missing(_) => missing,
                PairError::Unusable(error) if is_about_key(error) => &key_field,
                PairError::Unusable(_) => &cert_field,
            };
            let serves_on = match choice.serving {
                Some(_) => "; the last good pair serves on",
                None => "",
            };
            findings.push(ItemFinding {
                severity: Severity::Error,
                code: "certificate",
                field: field.into(),
                message: format!("{error}{serves_on}").into(),
            });
        }
        if let Some(pair) = &choice.serving {
            let warnings = pair.warnings(input.now, input.notice, &input.config.snis);
            findings.extend(warnings.into_iter().map(|warning| ItemFinding {
                severity: Severity::Warning,
                code: "certificate",
                field: cert_field.clone(),
                message: warning.to_string().into(),
            }));
        }
        pairs.push(choice.serving);
    }
    pairs
}

fn policy(input: &ItemInput<'_>) -> Result<TlsPolicy, ItemFinding> {
    let refuse = |field: &str, message: String| ItemFinding {
        severity: Severity::Error,
        code: "ssl",
        field: field.into(),
        message: message.into(),
    };
    let names = &input.config.ssl_protocols;
    let protocols = if names.is_empty() {
        input.protocols
    } else {
        Protocols::parse(names.iter().map(String::as_str))
            .map_err(|error| refuse("ssl_protocols", error.to_string()))?
    };
    let client = match &input.config.client {
        None => None,
        Some(client) if !client.skip_mtls_uri_regex.is_empty() => {
            // Serving such a name without the check would open it to everybody.
            let message = "not supported yet, so the item refuses".to_owned();
            return Err(refuse("client.skip_mtls_uri_regex", message));
        }
        Some(client) => Some(
            client_auth(client, input.client_ca).map_err(|message| refuse("client.ca", message))?,
        ),
    };
    Ok(TlsPolicy::new(input.id, protocols, client, 0))
}

fn client_auth(config: &SslClientConfig, ca: Option<&Value>) -> Result<Arc<ClientAuth>, String> {
    let ca = match ca {
        Some(Ok(ca)) => ca,
        Some(Err(reason)) => return Err(reason.to_string()),
        None => return Err("has no value".to_owned()),
    };
    let bundle = CaBundle::parse(ca.expose()).map_err(|error| error.to_string())?;
    let client = ClientAuth::build(bundle, config.depth);
    let client = client.map_err(|_| "openssl refuses a certificate of the bundle".to_owned())?;
    Ok(Arc::new(client))
}

/// Where the parts of a pair stand in the file: `cert`, `key`, then `certs.<n>`, `keys.<n>`.
fn fields(position: usize) -> (Box<str>, Box<str>) {
    match position.checked_sub(1) {
        None => ("cert".into(), "key".into()),
        Some(n) => (format!("certs.{n}").into(), format!("keys.{n}").into()),
    }
}

fn is_about_key(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::NoKey
            | CertificateError::EncryptedKey
            | CertificateError::BadKey
            | CertificateError::UnsupportedKey
            | CertificateError::WeakKey { .. }
            | CertificateError::Mismatch
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::tls::dev::{Authority, Issued, LeafOptions};
    use crate::tls::sni_store::IdentityState;

    fn leaf() -> Issued {
        Authority::new()
            .and_then(|ca| ca.issue(&["a.test"], &LeafOptions::default()))
            .expect("leaf")
    }

    fn values(issued: &Issued) -> (Value, Value) {
        let cert = Secret::from(issued.cert_pem.clone());
        (Ok(Arc::new(cert)), Ok(Arc::new(issued.key_pem.clone())))
    }

    fn build(
        config: &SslConfig,
        values: &[(Value, Value)],
        client_ca: Option<&Value>,
        served: &[Option<Arc<CertifiedKey>>],
    ) -> Built {
        build_identity(&ItemInput {
            id: &"1".into(),
            config,
            values,
            client_ca,
            protocols: Protocols::default(),
            served,
            now: ManualClock::new().wall(),
            notice: Duration::from_secs(30 * 86_400),
        })
    }

    fn config() -> SslConfig {
        SslConfig {
            snis: vec!["a.test".to_owned()],
            enabled: true,
            ..SslConfig::default()
        }
    }

    fn serves(built: &Built) -> usize {
        match &built.identity.state {
            IdentityState::Serving { pairs } => pairs.len(),
            IdentityState::Refused { .. } => 0,
        }
    }

    #[test]
    fn an_item_serves_with_the_pairs_that_can_and_names_the_others() {
        let good = values(&leaf());
        let bad = (values(&leaf()).0, values(&leaf()).1);
        let built = build(&config(), &[good, bad], None, &[]);
        assert_eq!(serves(&built), 1);
        let [finding] = &built.findings[..] else {
            panic!("{:?}", built.findings);
        };
        assert_eq!(&*finding.field, "keys.0");
        assert_eq!(
            &*finding.message,
            "the private key does not belong to the certificate"
        );
    }

    #[test]
    fn a_half_that_is_missing_refuses_and_is_named() {
        let (cert, _) = values(&leaf());
        let built = build(
            &config(),
            &[(cert, Err("field not found".into()))],
            None,
            &[],
        );
        assert_eq!(serves(&built), 0);
        assert_eq!(&*built.findings[0].field, "key");
        assert_eq!(&*built.findings[0].message, "field not found");
    }

    #[test]
    fn the_last_good_pair_serves_on_when_halves_do_not_fit() {
        let first = build(&config(), &[values(&leaf())], None, &[]);
        let torn = (values(&leaf()).0, values(&leaf()).1);
        let built = build(&config(), &[torn], None, &first.pairs);
        assert_eq!(serves(&built), 1);
        assert!(
            built.findings[0]
                .message
                .ends_with("the last good pair serves on")
        );
    }

    #[test]
    fn client_authentication_that_cannot_be_enforced_refuses_the_item() {
        let mut config = config();
        config.client = Some(SslClientConfig {
            ca: "$env://CA".to_owned(),
            depth: 1,
            skip_mtls_uri_regex: Vec::new(),
        });
        let ca = Authority::new().and_then(|ca| ca.cert_pem()).expect("pem");
        let good: Value = Ok(Arc::new(Secret::from(ca)));
        let garbage: Value = Ok(Arc::new(Secret::from("garbage".to_owned())));
        let missing: Value = Err("manager unreachable".into());
        let pair = [values(&leaf())];
        let built = build(&config, &pair, Some(&good), &[]);
        assert_eq!(serves(&built), 1);
        assert!(built.identity.policy.client().is_some());
        for ca in [Some(&garbage), Some(&missing), None] {
            let built = build(&config, &pair, ca, &[]);
            assert_eq!(serves(&built), 0);
            assert_eq!(&*built.findings[0].field, "client.ca");
        }
        let client = config.client.as_mut().expect("just set");
        client.skip_mtls_uri_regex.push("^/open".to_owned());
        let built = build(&config, &pair, Some(&good), &[]);
        assert_eq!(serves(&built), 0);
        assert_eq!(&*built.findings[0].field, "client.skip_mtls_uri_regex");
    }

    #[test]
    fn names_the_certificate_does_not_cover_are_worth_a_warning() {
        let mut config = config();
        config.snis.push("b.test".to_owned());
        let built = build(&config, &[values(&leaf())], None, &[]);
        assert_eq!(serves(&built), 1);
        assert_eq!(built.findings[0].severity, Severity::Warning);
        assert_eq!(
            &*built.findings[0].message,
            "the certificate does not cover b.test"
        );
    }
}
