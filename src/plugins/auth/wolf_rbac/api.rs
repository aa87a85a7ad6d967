//! What wolf offers to users through the gateway, on routes with `public-api`: logging in,
//! changing a password, asking who one is.

use futures::future::BoxFuture;
use http::{Method, header};
use serde_json::{Map, Value, json};

use super::server::Trouble;
use super::{Known, NAME, TOKEN_ARGUMENT, TOKEN_HEADER, Token, known, token_text};
use crate::http::query;
use crate::plugins::body::{Ahead, BodyError};
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::PublicApi;
use crate::plugins::respond::Response;

/// `POST`: name and password to a token.
pub(in crate::plugins) const LOGIN: PublicApi = PublicApi {
    plugin: NAME,
    method: Method::POST,
    uri: "/apisix/plugin/wolf-rbac/login",
    redacts: &[TOKEN_ARGUMENT, TOKEN_HEADER],
    serve: login,
};

/// `PUT`: another password.
pub(in crate::plugins) const CHANGE_PASSWORD: PublicApi = PublicApi {
    plugin: NAME,
    method: Method::PUT,
    uri: "/apisix/plugin/wolf-rbac/change_pwd",
    redacts: &[TOKEN_ARGUMENT, TOKEN_HEADER],
    serve: change_password,
};

/// `GET`: who the token's bearer is.
pub(in crate::plugins) const USER_INFO: PublicApi = PublicApi {
    plugin: NAME,
    method: Method::GET,
    uri: "/apisix/plugin/wolf-rbac/user_info",
    redacts: &[TOKEN_ARGUMENT, TOKEN_HEADER],
    serve: user_info,
};

/// Longest body that is read.
const MAX_BODY: u64 = 64 * 1024;

fn login<'a>(req: &'a mut RequestCtx<'_>) -> BoxFuture<'a, Response> {
    Box::pin(async move { logged_in(req).await.unwrap_or_else(|answer| answer) })
}

fn change_password<'a>(req: &'a mut RequestCtx<'_>) -> BoxFuture<'a, Response> {
    Box::pin(async move { changed(req).await.unwrap_or_else(|answer| answer) })
}

fn user_info<'a>(req: &'a mut RequestCtx<'_>) -> BoxFuture<'a, Response> {
    Box::pin(async move { told(req).await.unwrap_or_else(|answer| answer) })
}

async fn logged_in(req: &mut RequestCtx<'_>) -> Result<Response, Response> {
    let arguments = arguments(req).await?;
    let appid = match arguments.get("appid") {
        Some(Value::String(appid)) => appid.clone(),
        _ => return Err(Response::message(400, "appid is missing")),
    };
    let known = consumer(req, &appid)?;
    let body = Value::Object(arguments).to_string().into_bytes();
    let wolf = &known.application.wolf;
    let data = wolf.call(Method::POST, "/wolf/rbac/login.rest", None, Some(body));
    let data = data.await.map_err(|trouble| answer(&trouble))?;
    let Some(Value::String(token)) = data.get("token") else {
        return Err(answer(&Trouble::Failed));
    };
    let mut body = json!({ "rbac_token": format!("V1#{appid}#{token}") });
    add_user(&mut body, &data);
    Ok(Response::json(200, &body))
}

async fn changed(req: &mut RequestCtx<'_>) -> Result<Response, Response> {
    let arguments = arguments(req).await?;
    let (token, known) = bearer(req)?;
    let body = Value::Object(arguments).to_string().into_bytes();
    let wolf = &known.application.wolf;
    let path = "/wolf/rbac/change_pwd";
    let data = wolf.call(Method::POST, path, Some(&token.wolf), Some(body));
    data.await.map_err(|trouble| answer(&trouble))?;
    Ok(Response::message(200, "success to change password"))
}

async fn told(req: &mut RequestCtx<'_>) -> Result<Response, Response> {
    let (token, known) = bearer(req)?;
    let wolf = &known.application.wolf;
    let data = wolf.call(Method::GET, "/wolf/rbac/user_info", Some(&token.wolf), None);
    let data = data.await.map_err(|trouble| answer(&trouble))?;
    let mut body = json!({});
    add_user(&mut body, &data);
    Ok(Response::json(200, &body))
}

fn add_user(body: &mut Value, data: &Map<String, Value>) {
    if let (Some(user), Some(body)) = (data.get("userInfo"), body.as_object_mut()) {
        body.insert("user_info".to_owned(), user.clone());
    }
}

fn answer(trouble: &Trouble) -> Response {
    let status = match trouble {
        Trouble::Failed => 500,
        // As APISIX answers.
        Trouble::NotOk => 200,
    };
    Response::message(status, "request to wolf-server failed!")
}

/// The token's application.
fn bearer(req: &RequestCtx<'_>) -> Result<(Token, Known), Response> {
    let refused = |message| Response::message(401, message);
    let text = token_text(req).ok_or_else(|| refused("Missing rbac token in request"))?;
    let token = Token::parse(&text);
    let token = token.ok_or_else(|| refused("invalid rbac token: parse failed"))?;
    let known = consumer(req, &token.appid)?;
    Ok((token, known))
}

fn consumer(req: &RequestCtx<'_>, appid: &str) -> Result<Known, Response> {
    if !req.state.consumers.has_any(NAME) {
        return Err(Response::status(500));
    }
    known(req, appid).ok_or_else(|| Response::message(400, "appid not found"))
}

/// The body's fields, JSON or a form.
async fn arguments(req: &mut RequestCtx<'_>) -> Result<Map<String, Value>, Response> {
    let kind = req.header(&header::CONTENT_TYPE);
    let kind = kind.map_or(&b""[..], |kind| kind.as_bytes());
    let is_json = String::from_utf8_lossy(kind).contains("application/json");
    let body = match req.whole_body(MAX_BODY).await {
        Ok(Ahead::Whole(body)) => body,
        Ok(Ahead::Later) | Err(BodyError::TooLarge(_)) => return Err(Response::status(413)),
        Err(BodyError::Broken(status)) => return Err(Response::status(status)),
    };
    let invalid = || Response::message(400, "invalid request");
    if is_json {
        return serde_json::from_slice(&body).map_err(|_| invalid());
    }
    let text = std::str::from_utf8(&body).map_err(|_| invalid())?;
    Ok(form(text))
}

/// A form's fields; one that is given several times is a list.
fn form(text: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    for (name, value) in query::args(text) {
        let value = Value::String(value.into_owned());
        match fields.get_mut(&*name) {
            None => drop(fields.insert(name.into_owned(), value)),
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_become_fields() {
        let fields = form("appid=shop&username=a%20b&password=p%26q%3D%2B&x=1&x=2&x=3&y");
        let expected = json!({
            "appid": "shop", "username": "a b", "password": "p&q=+", "x": ["1", "2", "3"], "y": "",
        });
        assert_eq!(Value::Object(fields), expected);
    }
}
