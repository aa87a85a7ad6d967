//! Casdoor's HTTP interface, as its pages and its clients use it: the authorize page, the login
//! behind it, and the token endpoint, which takes each code once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use claviger::http::query;
use serde_json::{Value, json};

use super::service::{Said, Service, said};
use super::wire::Message;

/// The one application.
pub const CLIENT_ID: &str = "7ceb9b7fda4a9061ec1c";

#[derive(Default)]
struct State {
    secret: String,
    /// Codes that are worth a token, with the address they were made for.
    codes: HashMap<String, String>,
    given: usize,
    expires_in: Value,
    /// What was wrong with requests.
    complaints: Vec<String>,
}

/// A running Casdoor.
pub struct Casdoor {
    service: Service,
    state: Arc<Mutex<State>>,
}

impl Casdoor {
    /// A server that knows the application by this secret.
    pub fn start(secret: &str) -> Self {
        let state = Arc::new(Mutex::new(State {
            secret: secret.to_owned(),
            expires_in: json!(3600),
            ..State::default()
        }));
        let answering = Arc::clone(&state);
        let service = Service::start(move |request| {
            answer(
                &mut answering.lock().unwrap_or_else(PoisonError::into_inner),
                request,
            )
        });
        Self { service, state }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.service.addr
    }

    /// The application's secret from now on.
    pub fn set_secret(&self, secret: &str) {
        secret.clone_into(&mut self.lock().secret);
    }

    /// What tokens say of their life.
    pub fn set_expires_in(&self, expires_in: Value) {
        self.lock().expires_in = expires_in;
    }

    /// Answers everything so from now on.
    pub fn misbehave(&self, answer: impl Fn(&Message) -> Said + Send + Sync + 'static) {
        self.service.set(answer);
    }

    /// Requests since they were taken last.
    pub fn take(&self) -> Vec<Message> {
        self.service.take()
    }

    /// What was wrong with requests so far.
    pub fn complaints(&self) -> Vec<String> {
        self.lock().complaints.clone()
    }

    /// Logs a person in who was sent to this address, as the page does; the code it goes back
    /// with.
    pub fn log_in(&self, authorize: &str) -> String {
        let address = authorize.strip_prefix(&format!("http://{}", self.addr()));
        let path = address.expect("the browser is sent to Casdoor");
        let page = super::client::get(self.addr(), path, &[("Host", "door")]);
        assert_eq!(page.status, 200, "{:?}", self.complaints());
        let query = path.split_once('?').expect("it has a query").1;
        let body = r#"{"type":"code","username":"alice","password":"p"}"#;
        let mut connection = super::Connection::open(self.addr());
        connection.send(format!(
            "POST /api/login?{query} HTTP/1.1\r\nHost: door\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let answer: Value = serde_json::from_str(&connection.expect_reply().text()).unwrap();
        answer["data"].as_str().unwrap().to_owned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(state: &mut State, request: &Message) -> Said {
    let target = request.word(1).to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    match (request.word(0), path) {
        ("GET", "/login/oauth/authorize") => match authorize(query) {
            Ok(_) => said(200, &[("Content-Type", "text/html")], "<form>log in</form>"),
            Err(complaint) => {
                state.complaints.push(complaint.to_owned());
                said(400, &[], complaint)
            }
        },
        ("POST", "/api/login") => match authorize(query) {
            Ok(redirect_uri) => {
                state.given += 1;
                let code = format!("code/{}+&=", state.given);
                state.codes.insert(code.clone(), redirect_uri);
                json(200, &json!({"status": "ok", "msg": "", "data": code}))
            }
            Err(complaint) => json(200, &json!({"status": "error", "msg": complaint})),
        },
        ("POST", "/api/login/oauth/access_token") => token(state, request),
        _ => said(404, &[], ""),
    }
}

/// The address to go back to, if the question is one.
fn authorize(query: &str) -> Result<String, &'static str> {
    let argument = |name| query::first(query, name).ok_or("an argument is missing");
    if argument("response_type")? != "code" || argument("scope")? != "read" {
        return Err("response_type or scope");
    }
    if argument("client_id")? != CLIENT_ID {
        return Err("client_id");
    }
    if argument("state")?.is_empty() {
        return Err("state");
    }
    Ok(argument("redirect_uri")?.into_owned())
}

fn token(state: &mut State, request: &Message) -> Said {
    let form = request.text();
    let field = |name| query::first(&form, name).unwrap_or_default().into_owned();
    let type_of = request.header("content-type");
    if type_of != Some("application/x-www-form-urlencoded") {
        state.complaints.push(format!("content type {type_of:?}"));
    }
    let refused =
        |error: &str, what: &str| json(400, &json!({"error": error, "error_description": what}));
    if field("grant_type") != "authorization_code" {
        return refused("unsupported_grant_type", "grant_type");
    }
    if field("client_id") != CLIENT_ID || field("client_secret") != state.secret {
        return refused("invalid_client", "client_secret is invalid");
    }
    match state.codes.remove(&field("code")) {
        None => refused("invalid_grant", "authorization code is invalid"),
        Some(_) => json(
            200,
            &json!({
                "access_token": "ey.access.token",
                "id_token": "ey.id.token",
                "refresh_token": "ey.refresh.token",
                "token_type": "Bearer",
                "expires_in": state.expires_in,
                "scope": "read",
            }),
        ),
    }
}

fn json(status: u16, body: &Value) -> Said {
    let headers = [("Content-Type", "application/json; charset=utf-8")];
    said(status, &headers, body.to_string())
}
