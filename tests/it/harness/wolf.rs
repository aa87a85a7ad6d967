//! Speaks the HTTP interface of a wolf server: logging in, checking access, changing a password,
//! asking who one is. One application, `shop`, whose users may `GET` what begins with `/shop`.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::door::Door;
use super::wire::{Kind, Message, Reader};

/// What becomes of the next requests.
#[derive(Debug, Clone)]
pub enum Mood {
    /// They are answered by the rules.
    Good,
    /// So many get this status, and the rest are answered by the rules.
    Failing(usize, u16),
    /// They get this status and body.
    Saying(u16, String),
    /// They get nothing.
    Never,
    /// The connection is closed.
    Close,
}

struct State {
    mood: Mood,
    passwords: HashMap<String, String>,
    /// Of each living token.
    users: HashMap<String, String>,
    requests: Vec<Message>,
}

struct Shared {
    state: Mutex<State>,
}

/// A running server. It stops when dropped.
pub struct Wolf {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _door: Door,
}

impl Wolf {
    /// Listens on any port; these users exist, with their passwords.
    pub fn start(users: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let own = |(name, password): &(&str, &str)| (name.to_string(), password.to_string());
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                mood: Mood::Good,
                passwords: users.iter().map(own).collect(),
                users: HashMap::new(),
                requests: Vec::new(),
            }),
        });
        let serving = Arc::clone(&shared);
        let door = Door::open(listener, move |client| converse(&serving, client));
        Self {
            addr,
            shared,
            _door: door,
        }
    }

    /// `http://127.0.0.1:port`.
    pub fn uri(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Behaves so from the next request on.
    pub fn set(&self, mood: Mood) {
        self.shared.lock().mood = mood;
    }

    /// Requests since they were taken last.
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut self.shared.lock().requests)
    }

    /// A living token of this user.
    pub fn token(&self, user: &str) -> String {
        self.shared.lock().give(user)
    }
}

fn converse(shared: &Shared, mut client: TcpStream) {
    let _ = client.set_nodelay(true);
    let mut reader = Reader::default();
    while let Ok(Some(request)) = reader.message(&mut client, Kind::Request) {
        let mut state = shared.lock();
        state.requests.push(request.clone());
        let (status, body) = match state.mood.clone() {
            Mood::Good => state.answer(&request),
            Mood::Failing(0, _) => state.answer(&request),
            Mood::Failing(left, status) => {
                state.mood = Mood::Failing(left - 1, status);
                (status, "trouble".to_owned())
            }
            Mood::Saying(status, body) => (status, body),
            Mood::Never => {
                drop(state);
                // Held until the client gives up.
                let _ = reader.message(&mut client, Kind::Request);
                return;
            }
            Mood::Close => return,
        };
        drop(state);
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n");
        if client
            .write_all(&[head.as_bytes(), body.as_bytes()].concat())
            .is_err()
        {
            return;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn give(&mut self, user: &str) -> String {
        let token = format!("wolf#token/{user}+{}=", self.users.len());
        self.users.insert(token.clone(), user.to_owned());
        token
    }

    fn answer(&mut self, request: &Message) -> (u16, String) {
        let (method, target) = (request.word(0), request.word(1));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (status, body) = match (method, path) {
            ("POST", "/wolf/rbac/login.rest") => self.login(&body(request)),
            ("POST", "/wolf/rbac/change_pwd") => self.change(request),
            ("GET", "/wolf/rbac/user_info") => match self.user(request) {
                Some(user) => (200, ok(json!({"userInfo": user}))),
                None => (401, no("ERR_TOKEN_INVALID", Value::Null)),
            },
            ("GET", "/wolf/rbac/access_check") => self.check(request, query),
            _ => (404, no("not found", Value::Null)),
        };
        (status, body.to_string())
    }

    fn login(&mut self, body: &Value) -> (u16, Value) {
        let (user, password) = (body["username"].as_str(), body["password"].as_str());
        let known = user.and_then(|user| self.passwords.get(user));
        if body["appid"] != "shop" || known.is_none() || known.map(|known| &**known) != password {
            return (200, no("ERR_PASSWORD_ERROR", Value::Null));
        }
        let user = user.unwrap_or_default().to_owned();
        let token = self.give(&user);
        (200, ok(json!({"token": token, "userInfo": info(&user)})))
    }

    fn change(&mut self, request: &Message) -> (u16, Value) {
        let token = request.header("x-rbac-token").unwrap_or_default();
        let Some(user) = self.users.get(token).cloned() else {
            return (401, no("ERR_TOKEN_INVALID", Value::Null));
        };
        let body = body(request);
        let (old, new) = (body["oldPassword"].as_str(), body["newPassword"].as_str());
        if self.passwords.get(&user).map(|known| &**known) != old {
            return (200, no("ERR_OLD_PASSWORD_INCORRECT", Value::Null));
        }
        self.passwords
            .insert(user, new.unwrap_or_default().to_owned());
        (200, ok(Value::Null))
    }

    fn check(&self, request: &Message, query: &str) -> (u16, Value) {
        let pairs: HashMap<_, _> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let Some(user) = self.user(request) else {
            return (401, no("ERR_TOKEN_INVALID", Value::Null));
        };
        let of = |name: &str| *pairs.get(name).unwrap_or(&"");
        let allowed = of("appID") == "shop"
            && of("action") == "GET"
            && of("resName").starts_with("%2Fshop")
            && of("clientIP") == "127.0.0.1";
        if allowed {
            (200, ok(json!({"userInfo": user})))
        } else {
            (401, no("ERR_ACCESS_DENIED", json!({"userInfo": user})))
        }
    }

    fn user(&self, request: &Message) -> Option<Value> {
        self.users
            .get(request.header("x-rbac-token")?)
            .map(|user| info(user))
    }
}

fn body(request: &Message) -> Value {
    let json = request
        .header("content-type")
        .is_some_and(|kind| kind.contains("application/json"));
    let body = json
        .then(|| serde_json::from_slice(&request.body).ok())
        .flatten();
    body.unwrap_or_default()
}

/// Names have what headers cannot carry as it is.
fn info(user: &str) -> Value {
    json!({"id": 100, "username": user, "nickname": format!("{user} ü/1")})
}

fn ok(data: Value) -> Value {
    json!({"ok": true, "reason": "", "data": data})
}

fn no(reason: &str, data: Value) -> Value {
    json!({"ok": false, "reason": reason, "data": data})
}
