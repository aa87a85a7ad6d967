//! What `drongo` lacks of Google: the token endpoint, which checks the signed assertion; the
//! metadata server; and a guard before Secret Manager that wants a living token and knows who may
//! read what.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Public};
use openssl::rsa::Rsa;
use openssl::sign::Verifier;
use serde_json::{Value, json};

use super::door::Door;
use super::drongo::{Drongo, PROJECT};
use super::relay::{forward, in_wire_form};
use super::wire::{Kind, Message, Reader};

/// What becomes of a question for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// It is answered, if the assertion is good.
    Good,
    /// The key is not known (any more).
    Refused,
    /// A page of something in between.
    Garbage,
    /// Nothing is answered.
    Never,
    /// A 503.
    Failing,
}

/// What every token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Read values and metadata.
    Admin,
    /// Read metadata: `secretmanager.viewer`.
    Viewer,
    /// Read values, and not even ask for a version's state: `secretmanager.secretAccessor`.
    Accessor,
}

/// How long tokens last.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// `expires_in`, in seconds.
    pub told: u64,
    /// In truth.
    pub true_for: Duration,
}

struct State {
    accounts: HashMap<String, PKey<Public>>,
    tokens: Tokens,
    role: Role,
    life: Life,
    /// How far the time of assertions is before ours.
    ahead: Duration,
    /// End of each token that was given out and not revoked.
    living: HashMap<String, Instant>,
    given: usize,
    /// Who logged in, in order; `metadata` is the machine.
    logins: Vec<String>,
    /// What was wrong with assertions.
    complaints: Vec<String>,
    forbidden: HashSet<String>,
    reads: usize,
    unauthorized: usize,
    flavored: bool,
}

struct Shared {
    addr: SocketAddr,
    drongo: SocketAddr,
    state: Mutex<State>,
}

/// A running stub. It stops when dropped.
pub struct Google {
    shared: Arc<Shared>,
    _door: Door,
}

impl Google {
    /// Listens on any port, before this server.
    pub fn start(drongo: &Drongo) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            addr: listener.local_addr().unwrap(),
            drongo: drongo.addr.trim_start_matches("http://").parse().unwrap(),
            state: Mutex::new(State {
                accounts: HashMap::new(),
                tokens: Tokens::Good,
                role: Role::Admin,
                life: Life {
                    told: 3600,
                    true_for: Duration::from_secs(3600),
                },
                ahead: Duration::ZERO,
                living: HashMap::new(),
                given: 0,
                logins: Vec::new(),
                complaints: Vec::new(),
                forbidden: HashSet::new(),
                reads: 0,
                unauthorized: 0,
                flavored: true,
            }),
        });
        let serving = Arc::clone(&shared);
        let door = Door::open(listener, move |client| converse(&serving, client));
        Self {
            shared,
            _door: door,
        }
    }

    /// `http://127.0.0.1:port`.
    pub fn uri(&self) -> String {
        format!("http://{}", self.shared.addr)
    }

    /// Makes an account known, and gives its key: the file Google offers for download, with our
    /// token endpoint in it.
    pub fn account(&self, email: &str) -> Value {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let public = PKey::public_key_from_pem(&key.public_key_to_pem().unwrap()).unwrap();
        self.lock().accounts.insert(email.to_owned(), public);
        let pem = String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        json!({
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "0123456789abcdef",
            "private_key": pem,
            "client_email": email,
            "client_id": "123456789012345678901",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": format!("{}/token", self.uri()),
            "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
            "client_x509_cert_url": "https://www.googleapis.com/robot/v1/metadata/x509/a",
            "universe_domain": "googleapis.com",
        })
    }

    /// Forgets an account.
    pub fn forget(&self, email: &str) {
        self.lock().accounts.remove(email);
    }

    /// Does so from the next question for a token on.
    pub fn set_tokens(&self, tokens: Tokens) {
        self.lock().tokens = tokens;
    }

    /// Tokens, also those given out, may do this from now on.
    pub fn set_role(&self, role: Role) {
        self.lock().role = role;
    }

    /// The next tokens last so long.
    pub fn set_life(&self, told: u64, true_for: Duration) {
        self.lock().life = Life { told, true_for };
    }

    /// Assertions are made by a clock that is so much before ours.
    pub fn set_ahead(&self, ahead: Duration) {
        self.lock().ahead = ahead;
    }

    /// Ends every token that was given out.
    pub fn revoke(&self) {
        self.lock().living.clear();
    }

    /// Nobody may read this secret.
    pub fn forbid(&self, name: &str) {
        self.lock().forbidden.insert(name.to_owned());
    }

    /// Takes [`Google::forbid`] back.
    pub fn allow(&self, name: &str) {
        self.lock().forbidden.remove(name);
    }

    /// The metadata server forgets to say that it is Google's.
    pub fn drop_flavor(&self) {
        self.lock().flavored = false;
    }

    /// Who logged in so far, in order.
    pub fn logins(&self) -> Vec<String> {
        self.lock().logins.clone()
    }

    /// Requests to Secret Manager that had a living token, and those that had none.
    pub fn reads(&self) -> (usize, usize) {
        let state = self.lock();
        (state.reads, state.unauthorized)
    }

    /// What was wrong with assertions; empty if nothing ever was.
    pub fn complaints(&self) -> Vec<String> {
        self.lock().complaints.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

/// Status, fields and body; `None` leaves the connection without an answer.
type Answered = Option<(u16, &'static str, String)>;

fn converse(shared: &Shared, mut client: TcpStream) {
    let _ = client.set_nodelay(true);
    let mut reader = Reader::default();
    while let Ok(Some(request)) = reader.message(&mut client, Kind::Request) {
        let path = request.word(1).to_owned();
        let answer = match path.split('/').nth(1) {
            Some("token") => in_words(shared.token(&request)),
            Some("computeMetadata") => in_words(shared.metadata(&request)),
            _ => shared.guarded(&request),
        };
        let Some(bytes) = answer else {
            // Held until the client gives up.
            let _ = reader.message(&mut client, Kind::Request);
            return;
        };
        if client.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn in_words(answered: Answered) -> Option<Vec<u8>> {
    let (status, fields, body) = answered?;
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {length}\r\n\r\n");
    Some([head.as_bytes(), body.as_bytes()].concat())
}

/// An error as Google words it.
fn google_error(code: u16, status: &str, message: &str) -> String {
    json!({"error": {"code": code, "message": message, "status": status}}).to_string()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn token(&self, request: &Message) -> Answered {
        let mut state = self.lock();
        match state.tokens {
            Tokens::Good => {}
            Tokens::Refused => return Some((400, "", r#"{"error":"invalid_grant"}"#.to_owned())),
            Tokens::Garbage => return Some((200, "", "<html>hunter2</html>".to_owned())),
            Tokens::Never => return None,
            Tokens::Failing => return Some((503, "", "hunter2".to_owned())),
        }
        match self.check(&state, request) {
            Ok(email) => Some((200, "", state.give(email))),
            Err(complaint) => {
                state.complaints.push(complaint);
                Some((400, "", r#"{"error":"invalid_grant"}"#.to_owned()))
            }
        }
    }

    /// Who signed the assertion, if everything about it is as Google wants it.
    fn check(&self, state: &State, request: &Message) -> Result<String, String> {
        let is = |what: &str, found: bool| if found { Ok(()) } else { Err(what.to_owned()) };
        is("method", request.word(0) == "POST")?;
        let kind = request.header("content-type");
        is(
            "content-type",
            kind == Some("application/x-www-form-urlencoded"),
        )?;
        let form = request.text();
        let assertion = form
            .strip_prefix(
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=",
            )
            .ok_or("form")?;
        let (message, signature) = assertion.rsplit_once('.').ok_or("parts")?;
        let (header, claims) = message.split_once('.').ok_or("parts")?;
        let decode = |part| {
            URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| "base64".to_owned())
        };
        let read = |part| -> Result<Value, String> {
            serde_json::from_slice(&decode(part)?).map_err(|_| "JSON".to_owned())
        };
        is(
            "header",
            read(header)? == json!({"typ": "JWT", "alg": "RS256"}),
        )?;
        let claims = read(claims)?;
        let text = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| claims[name].as_u64().unwrap_or_default();
        is("aud", text("aud") == format!("http://{}/token", self.addr))?;
        is(
            "scope",
            text("scope") == "https://www.googleapis.com/auth/cloud-platform",
        )?;
        let now = SystemTime::now() + state.ahead;
        let now = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
        is("iat", number("iat").abs_diff(now) < 30)?;
        is("exp", number("exp") == number("iat") + 3600)?;
        is("claims", claims.as_object().unwrap().len() == 5)?;
        let email = text("iss");
        let key = state.accounts.get(&email).ok_or("iss")?;
        let mut verifier = Verifier::new(MessageDigest::sha256(), key).unwrap();
        let good = verifier.verify_oneshot(&decode(signature)?, message.as_bytes());
        is("signature", good.unwrap_or(false))?;
        Ok(email)
    }

    fn metadata(&self, request: &Message) -> Answered {
        let mut state = self.lock();
        if request.header("metadata-flavor") != Some("Google") {
            return Some((403, "", "Missing Metadata-Flavor:Google header.".to_owned()));
        }
        let fields = match state.flavored {
            true => "Metadata-Flavor: Google\r\n",
            false => "",
        };
        match request.word(1) {
            "/computeMetadata/v1/instance/service-accounts/default/token" => {
                if state.tokens == Tokens::Refused {
                    return Some((404, fields, "hunter2".to_owned()));
                }
                Some((200, fields, state.give("metadata".to_owned())))
            }
            "/computeMetadata/v1/project/project-id" => Some((200, fields, PROJECT.to_owned())),
            _ => Some((404, fields, String::new())),
        }
    }

    /// What Secret Manager says to whoever may ask.
    fn guarded(&self, request: &Message) -> Option<Vec<u8>> {
        let path = request.word(1);
        let refuse = |code, status, message| {
            Some(in_wire_form(
                code,
                google_error(code, status, message).as_bytes(),
            ))
        };
        {
            let mut state = self.lock();
            let token = request.header("authorization").unwrap_or_default();
            let token = token.strip_prefix("Bearer ").unwrap_or_default();
            if state
                .living
                .get(token)
                .is_none_or(|ends| *ends < Instant::now())
            {
                state.unauthorized += 1;
                return refuse(401, "UNAUTHENTICATED", "hunter2");
            }
            state.reads += 1;
            let reads_value = path.ends_with(":access");
            let allowed = match state.role {
                Role::Admin => true,
                Role::Viewer => !reads_value,
                Role::Accessor => reads_value,
            };
            let secret = path.split('/').nth(5).unwrap_or_default();
            if !allowed || state.forbidden.contains(secret) {
                return refuse(403, "PERMISSION_DENIED", "hunter2");
            }
        }
        let mut request = request.clone();
        // To Google `latest` is the newest version, in whatever state; to drongo one that can be
        // read.
        if let Some((secret, rest)) = path.split_once("/versions/latest") {
            match self.newest(secret) {
                Some(newest) => {
                    request.start = format!("GET {secret}/versions/{newest}{rest} HTTP/1.1")
                }
                None => return refuse(404, "NOT_FOUND", "hunter2"),
            }
        }
        forward(&request, self.drongo)
    }

    fn newest(&self, secret: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(self.drongo).ok()?;
        let head =
            format!("GET {secret}/versions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        let answer = Reader::default()
            .message(&mut stream, Kind::Answer)
            .ok()??;
        let versions: Value = serde_json::from_slice(&answer.body).ok()?;
        versions["totalSize"].as_u64().filter(|newest| *newest > 0)
    }
}

impl State {
    fn give(&mut self, who: String) -> String {
        self.given += 1;
        let token = format!("ya29.test-{}", self.given);
        let ends = Instant::now() + self.life.true_for;
        self.living.insert(token.clone(), ends);
        self.logins.push(who);
        json!({"access_token": token, "expires_in": self.life.told, "token_type": "Bearer"})
            .to_string()
    }
}
