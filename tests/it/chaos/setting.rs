//! The managers behind their proxies, the documents in them, and the configuration that uses them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use claviger::tls::dev::Authority;
use openssl::x509::X509;
use serde_json::{Value, json};

use super::history::History;
use crate::harness::chaos::{Chaos, Climate, Dialect, Faces, Front};
use crate::harness::moto::Moto;
use crate::harness::{Drongo, Google, OpenBao, certs};

/// What keeps the documents of a place.
pub enum Keeper {
    /// KV version 1 of a server.
    V1(Arc<OpenBao>),
    /// KV version 2 of a server.
    V2(Arc<OpenBao>),
    /// AWS Secrets Manager.
    Aws(Moto),
    /// Google Secret Manager, and who guards it.
    Gcp(Drongo, Google),
}

impl Keeper {
    async fn put(&self, path: &str, fields: Value) {
        match self {
            Self::V1(bao) => bao.put_v1(path, fields).await,
            Self::V2(bao) => bao.put_v2(path, fields).await,
            Self::Aws(moto) => moto.put(path, &fields.to_string()).await,
            Self::Gcp(drongo, _) => drongo.put(path, fields.to_string().as_bytes()).await,
        }
    }

    async fn delete(&self, path: &str) {
        match self {
            Self::V1(bao) => bao.delete_v1(path).await,
            Self::V2(bao) => bao.delete_v2(path).await,
            Self::Aws(moto) => moto.delete(path).await,
            Self::Gcp(drongo, _) => drongo.set_newest(path, "disable").await,
        }
    }
}

/// What a document is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// `key`: a consumer's credential.
    Key,
    /// `a` and `b`: two fields of one plugin.
    Pair,
    /// `cert` and `key`: a certificate.
    Tls,
    /// A certificate in one document, its key in another.
    Split,
}

/// One manager as the gateway knows it.
pub struct Place {
    /// Such as `vault/two`.
    pub id: &'static str,
    /// Its item but for the id.
    fields: String,
    /// Folder of its documents, with a slash.
    prefix: &'static str,
    keeper: Keeper,
    /// What stands between.
    pub proxy: Chaos,
    /// What its documents are used for.
    pub uses: &'static [Use],
    /// Seconds its values may be stale.
    max_stale: u64,
}

/// Long enough that no outage here is longer.
const LONG: u64 = 3600;
/// Short enough to end in an outage.
pub const BRIEF: u64 = 2;
/// What a lapse may take beyond its time, on a busy machine.
const SLACK: Duration = Duration::from_millis(2500);
/// What a read may take; less than a stall.
const TIMEOUT: u64 = 4;

impl Place {
    /// Name in hosts and consumers.
    pub fn name(&self) -> String {
        self.id.replace('/', "-")
    }

    /// Name of a document of this place.
    pub fn document(&self, of: Use) -> String {
        format!("{}.{}", self.id, format!("{of:?}").to_lowercase())
    }

    /// Whether its values may end while it is away.
    pub fn is_brief(&self) -> bool {
        self.max_stale < LONG
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.max_stale) + SLACK
    }

    /// Writes a new version of a document.
    pub async fn rotate(&self, history: &History, authority: &Authority, of: Use) {
        let name = self.document(of);
        let fresh = |field: &str| format!("{name}.{field}.{:016x}", rand::random::<u64>());
        let path = |document: &str| format!("{}{document}", self.prefix);
        match of {
            Use::Key => {
                let key = fresh("key");
                let number = history.begin(&name, self.limit(), [("key", key.clone())].into());
                self.keeper.put(&path("key"), json!({"key": key})).await;
                history.done(&name, number);
            }
            Use::Pair => {
                let (a, b) = (fresh("a"), fresh("b"));
                let fields = [("a", a.clone()), ("b", b.clone())].into();
                let number = history.begin(&name, self.limit(), fields);
                self.keeper
                    .put(&path("pair"), json!({"a": a, "b": b}))
                    .await;
                history.done(&name, number);
            }
            Use::Tls | Use::Split => {
                let issued = certs::server(authority, &[&self.host(of)]);
                let (cert, key) = (&issued.cert_pem, certs::key_text(&issued));
                let der = X509::from_pem(cert.as_bytes()).unwrap().to_der().unwrap();
                let fields: HashMap<_, _> = [("der", hex(&der))].into();
                // Halves that were read apart may not fit each other for a long time.
                let limit = Duration::from_secs(LONG);
                let number = history.begin(&name, limit, fields);
                if of == Use::Tls {
                    let both = json!({"cert": cert, "key": key});
                    self.keeper.put(&path("tls"), both).await;
                } else {
                    self.keeper.put(&path("cert"), json!({"pem": cert})).await;
                    self.keeper.put(&path("pem"), json!({"key": key})).await;
                }
                history.done(&name, number);
            }
        }
    }

    /// Deletes the consumer's credential.
    pub async fn delete_key(&self) {
        self.keeper.delete(&format!("{}key", self.prefix)).await;
    }

    /// The name a use is asked for by.
    pub fn host(&self, of: Use) -> String {
        format!("{}.{}.test", format!("{of:?}").to_lowercase(), self.name())
    }
}

/// For comparison.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// All places.
pub async fn places(seed: u64, climate: Climate, dir: &std::path::Path) -> Vec<Place> {
    let (plain, tls, moto, drongo) = tokio::join!(
        OpenBao::start(),
        OpenBao::start_tls(),
        Moto::start(),
        Drongo::start()
    );
    let google = Google::start(&drongo);
    let (plain, tls) = (Arc::new(plain), Arc::new(tls));
    let authority = Authority::new().unwrap();
    let ca = dir.join("proxy-ca.pem");
    std::fs::write(&ca, authority.cert_pem().unwrap()).unwrap();
    let faces = || Faces::new(&authority, &["127.0.0.1", "localhost"]);
    // The real server's authority is not ours: its certificate is what the tunnel passes.
    let tunnel = Faces::new(&authority, &["127.0.0.1", "localhost"]);
    let before = |addr: &str, front, dialect, climate, n| {
        let manager = addr.rsplit('/').next().unwrap().parse().unwrap();
        Chaos::start(manager, front, dialect, climate, seed.wrapping_add(n))
    };
    let proxy =
        |bao: &OpenBao, front, climate, n| before(&bao.addr, front, Dialect::Vault, climate, n);
    let vault = |uri: String, mount: &str, token: &str, rest: &str| {
        format!("uri: '{uri}', prefix: {mount}, token: '{token}', {rest}")
    };
    let all = &[Use::Key, Use::Pair, Use::Tls][..];

    let two = proxy(&plain, Front::Http, climate, 1);
    let one = proxy(&plain, Front::Https(faces()), climate, 2);
    let over = proxy(&tls, Front::Tunnel(tunnel), climate, 3);
    let outages = Climate::Outages(Duration::from_secs(4), Duration::from_secs(2));
    let brief = proxy(&plain, Front::Http, outages, 4);
    let aws = before(&moto.addr, Front::Http, Dialect::Aws, climate, 5);
    let gcp = before(&google.uri(), Front::Http, Dialect::Gcp, climate, 6);
    let mut account = google.account("gateway@test-project.iam.gserviceaccount.com");
    account["entries_uri"] = format!("http://{}/v1", gcp.addr).into();
    // Logins again and again.
    google.set_life(3, Duration::from_secs(30));
    let trusting =
        |ca: &std::path::Path| format!("timeout: {TIMEOUT}, tls: {{ ca: '{}' }}", ca.display());
    vec![
        Place {
            id: "vault/two",
            fields: vault(
                format!("http://{}", two.addr),
                "secret/two",
                &plain.token,
                &format!("timeout: {TIMEOUT}"),
            ),
            prefix: "two/",
            keeper: Keeper::V2(Arc::clone(&plain)),
            proxy: two,
            uses: &[Use::Key, Use::Pair, Use::Tls, Use::Split],
            max_stale: LONG,
        },
        Place {
            id: "vault/one",
            fields: vault(
                format!("https://{}", one.addr),
                "kv1/one",
                &plain.token,
                &trusting(&ca),
            ),
            prefix: "one/",
            keeper: Keeper::V1(Arc::clone(&plain)),
            proxy: one,
            uses: all,
            max_stale: LONG,
        },
        Place {
            id: "vault/tls",
            fields: vault(
                format!("https://{}", over.addr),
                "secret/tls",
                &tls.token,
                &trusting(&tls.ca()),
            ),
            prefix: "tls/",
            keeper: Keeper::V2(Arc::clone(&tls)),
            proxy: over,
            uses: all,
            max_stale: LONG,
        },
        Place {
            id: "vault/brief",
            fields: vault(
                format!("http://{}", brief.addr),
                "secret/brief",
                &plain.token,
                "timeout: 1",
            ),
            prefix: "brief/",
            keeper: Keeper::V2(plain),
            proxy: brief,
            uses: &[Use::Key, Use::Pair],
            max_stale: BRIEF,
        },
        Place {
            id: "aws/main",
            fields: format!(
                "access_key_id: AKIDTEST, secret_access_key: chaos, timeout: {TIMEOUT}, \
                 endpoint_url: 'http://{}'",
                aws.addr
            ),
            prefix: "",
            keeper: Keeper::Aws(moto),
            proxy: aws,
            uses: all,
            max_stale: LONG,
        },
        Place {
            id: "gcp/main",
            fields: format!("auth_config: {account}, timeout: {TIMEOUT}"),
            prefix: "",
            keeper: Keeper::Gcp(drongo, google),
            proxy: gcp,
            uses: all,
            max_stale: LONG,
        },
    ]
}

/// The configuration that uses every document of every place.
pub fn resources(places: &[Place], upstream: std::net::SocketAddr) -> String {
    let mut secrets = String::from("secrets:\n");
    let mut consumers = String::from(
        "consumers:\n  - { username: steady, plugins: { key-auth: { key: steady-key } } }\n",
    );
    let mut ssls = String::from("ssls:\n");
    let mut routes = format!(
        "upstreams:\n  - {{ id: up, type: roundrobin, nodes: {{ \"{upstream}\": 1 }} }}\n\
         routes:\n  - {{ id: guarded, host: guarded.test, uri: /*, plugins: {{ key-auth: {{}} }}, upstream_id: up }}\n"
    );
    for place in places {
        let (id, name, max_stale) = (place.id, place.name(), place.max_stale);
        let _ = writeln!(
            secrets,
            "  - {{ id: {id}, {}, ttl: 1, neg_ttl: 1, max_stale: {max_stale} }}",
            place.fields
        );
        for of in place.uses {
            let host = place.host(*of);
            let _ = match of {
                Use::Key => writeln!(
                    consumers,
                    "  - {{ username: {name}, plugins: {{ key-auth: {{ key: $secret://{id}/key/key }} }} }}"
                ),
                Use::Pair => writeln!(
                    routes,
                    "  - {{ id: {name}, host: {host}, uri: /*, upstream_id: up, plugins: {{ \
                     proxy-rewrite: {{ headers: {{ set: {{ X-Up: $secret://{id}/pair/a }} }} }}, \
                     response-rewrite: {{ headers: {{ set: {{ X-A: $secret://{id}/pair/a, X-B: $secret://{id}/pair/b }} }} }} }} }}"
                ),
                Use::Tls => writeln!(
                    ssls,
                    "  - {{ id: {name}, sni: {host}, cert: $secret://{id}/tls/cert, key: $secret://{id}/tls/key }}"
                ),
                Use::Split => writeln!(
                    ssls,
                    "  - {{ id: {name}-split, sni: {host}, cert: $secret://{id}/cert/pem, key: $secret://{id}/pem/key }}"
                ),
            };
        }
    }
    [secrets, consumers, ssls, routes].concat()
}
