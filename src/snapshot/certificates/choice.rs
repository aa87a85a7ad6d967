//! Which values of a declared pair serve, and what is said about them.

use std::sync::Arc;
use std::time::SystemTime;

use crate::config::resource::Pem;
use crate::secrets::Secret;
use crate::snapshot::compile::{Compilation, Scope};
use crate::snapshot::substitute;
use crate::tls::{
    CertificateError, CertifiedKey, Newest, PairError, Purpose, Validity, choose_pair,
};

/// A pair as it is declared.
#[derive(Clone, Copy)]
pub(in crate::snapshot) struct Declared<'a> {
    /// Certificates and key, each PEM or reference.
    pub texts: (&'a str, &'a str),
    /// Where they stand.
    pub fields: &'a [String; 2],
    /// The names it is to cover.
    pub names: &'a [String],
    /// Who presents it.
    pub purpose: Purpose,
    /// Whether it is presented past its end.
    pub serve_expired: bool,
}

/// What became of a declared pair.
#[derive(Default)]
pub(in crate::snapshot) struct Choice {
    /// The newest values, or the pair of before while they do not fit; `None` refuses. It may not be
    /// valid now.
    pub pair: Option<Arc<CertifiedKey>>,
    /// When time alone changes what is served or said.
    pub review: Option<SystemTime>,
}

impl Choice {
    /// The pair, where it is presented now.
    pub(in crate::snapshot) fn shown(
        &self,
        declared: &Declared<'_>,
        run: &Compilation<'_>,
    ) -> Option<Arc<CertifiedKey>> {
        let pair = self.pair.clone();
        pair.filter(|pair| is_shown(pair, declared.serve_expired, run.now))
    }
}

/// Whether a pair is presented at this moment.
fn is_shown(pair: &CertifiedKey, serve_expired: bool, now: SystemTime) -> bool {
    match pair.validity(now) {
        Validity::Valid => true,
        Validity::Expired => serve_expired,
        Validity::Early => false,
    }
}

/// Chooses between the newest values and those that served before, and says what is wrong with
/// either. Touches nothing but `scope`, so that many pairs can be chosen at once.
pub(in crate::snapshot) fn choose(
    declared: &Declared<'_>,
    served: Option<&Arc<CertifiedKey>>,
    scope: &mut Scope<'_>,
) -> Choice {
    let ((cert, key), [cert_field, key_field]) = (declared.texts, declared.fields);
    let view = scope.run.view;
    let cert = substitute::pem(cert, Pem::Certificate, cert_field, view);
    let key = substitute::pem(key, Pem::Key, key_field, view);
    for missing in [&cert, &key]
        .into_iter()
        .filter_map(|half| half.as_ref().err())
    {
        scope.unresolved(&missing.field, missing);
    }
    let (Ok(cert), Ok(key)) = (cert, key) else {
        return Choice::default();
    };
    let (cert, key) = match (cert, key) {
        (Ok(cert), Ok(key)) => (cert, key),
        (Err(bounds), _) => return keep(&bounds, cert_field, declared, served, scope),
        (_, Err(bounds)) => return keep(&bounds, key_field, declared, served, scope),
    };
    // Literal halves are wrapped too: a key is a secret however it got here.
    let (cert, key) = (Secret::new(cert.to_vec()), Secret::new(key.to_vec()));
    let newest = Newest::Values {
        cert: &cert,
        key: &key,
    };
    let run = scope.run;
    let choice = choose_pair(newest, served, run.now, &run.env.certificates.chains);
    let Some(pair) = choice.serving else {
        if let Some(finding) = choice.finding {
            let field = field_of(&finding, declared);
            scope.error("certificate", field, &finding.to_string());
        }
        return Choice::default();
    };
    let notice = run.env.certificates.expiry_notice;
    let mut review = pair.next_change(run.now, notice);
    if let Some(finding) = &choice.finding {
        tell(finding, &pair, declared, scope);
        if let PairError::Unusable(CertificateError::NotYetValid { at }) = finding {
            review = review.into_iter().chain([*at]).min();
        }
    }
    for warning in pair.warnings(run.now, notice, declared.purpose, declared.names) {
        scope.warn("certificate", cert_field, &warning.to_string());
    }
    Choice {
        pair: Some(pair),
        review,
    }
}

/// The values are out of bounds: the pair of before serves on.
fn keep(
    bounds: &str,
    field: &str,
    declared: &Declared<'_>,
    served: Option<&Arc<CertifiedKey>>,
    scope: &mut Scope<'_>,
) -> Choice {
    let message = match served {
        Some(served) => and_serves(bounds, served, declared, scope.run.now),
        None => bounds.to_owned(),
    };
    scope.error("certificate", field, &message);
    let notice = scope.run.env.certificates.expiry_notice;
    Choice {
        review: served.and_then(|pair| pair.next_change(scope.run.now, notice)),
        pair: served.cloned(),
    }
}

/// Says why the newest values do not serve, and what does.
fn tell(
    finding: &PairError,
    serving: &Arc<CertifiedKey>,
    declared: &Declared<'_>,
    scope: &mut Scope<'_>,
) {
    let now = scope.run.now;
    let field = field_of(finding, declared);
    // Of a pair that is not valid now the newest itself may have been chosen, for want of another.
    let message = match (finding, serving.validity(now)) {
        (PairError::Unusable(CertificateError::Expired { .. }), Validity::Expired) => {
            if declared.serve_expired {
                let message = format!("{finding}; serve_expired lets it be presented all the same");
                scope.warn("certificate", field, &message);
                return;
            }
            format!("{finding}; it is not presented any more")
        }
        (PairError::Unusable(CertificateError::NotYetValid { .. }), Validity::Early) => {
            format!("{finding}; it is not presented until then")
        }
        _ => and_serves(&finding.to_string(), serving, declared, now),
    };
    scope.error("certificate", field, &message);
}

fn field_of<'a>(finding: &PairError, declared: &Declared<'a>) -> &'a str {
    let [cert, key] = declared.fields;
    match finding {
        PairError::Unusable(error) if error.is_about_key() => key,
        _ => cert,
    }
}

/// The finding, and what is with the pair that served before.
fn and_serves(
    finding: &str,
    served: &CertifiedKey,
    declared: &Declared<'_>,
    now: SystemTime,
) -> String {
    if is_shown(served, declared.serve_expired, now) {
        format!("{finding}; the last good pair serves on")
    } else {
        format!("{finding}; the last good pair has expired")
    }
}
