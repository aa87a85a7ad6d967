//! Sends answers the gateway makes itself, through the header and body filters, keeping the
//! connection alive (Pingora's own error answers close it).

use bytes::Bytes;
use http::{HeaderValue, header};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::ctx::Exchange;
use crate::plugins::{RequestCtx, Response};

/// What a body is where its maker does not say (`spec/00` §7.3).
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Answers the request. `server` is the value of the `Server` header.
///
/// # Errors
/// The client is gone.
pub(super) async fn answer(
    session: &mut Session,
    exchange: &mut Exchange,
    response: Response,
    server: &HeaderValue,
) -> Result<()> {
    let (head, body) = head_and_body(&response, server)?;
    send(session, exchange, head, body).await
}

/// Sends a whole response through the header and body filters.
///
/// # Errors
/// The client is gone.
pub(super) async fn send(
    session: &mut Session,
    exchange: &mut Exchange,
    mut head: ResponseHeader,
    mut body: Option<Bytes>,
) -> Result<()> {
    let is_head = session.req_header().method == http::Method::HEAD;
    exchange.state.status = head.status.as_u16();
    let length = |body: &Option<Bytes>| body.as_ref().map_or(0, Bytes::len);
    // Before the filters, so that one that changes the body of an answer to HEAD takes it away.
    head.insert_header(header::CONTENT_LENGTH, length(&body))?;
    {
        let mut req = RequestCtx::new(session.req_header_mut(), &mut exchange.state);
        exchange.scopes.header_filter(&mut req, &mut head);
        if !is_head && exchange.scopes.filters_body() {
            exchange.scopes.body_filter(&mut req, &mut body, true);
        }
    }
    let status = head.status.as_u16();
    exchange.state.status = status;
    if bodiless(status) {
        head.remove_header(&header::CONTENT_LENGTH);
        body = None;
    } else if is_head {
        body = None;
    } else {
        head.insert_header(header::CONTENT_LENGTH, length(&body))?;
    }
    let body = body.unwrap_or_default();
    close_when_stopping(session);
    session
        .write_response_header(Box::new(head), body.is_empty())
        .await?;
    if !body.is_empty() {
        let sent = body.len() as u64;
        session.write_response_body(Some(body), true).await?;
        exchange.state.body_bytes_sent += sent;
    }
    Ok(())
}

/// Answers where no exchange exists, so no filter can run.
///
/// # Errors
/// The client is gone.
pub(super) async fn bare(
    session: &mut Session,
    response: &Response,
    server: &HeaderValue,
) -> Result<()> {
    let (mut head, body) = head_and_body(response, server)?;
    let body = body.unwrap_or_default();
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    close_when_stopping(session);
    session
        .write_response_header(Box::new(head), body.is_empty())
        .await?;
    if !body.is_empty() {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

fn head_and_body(
    response: &Response,
    server: &HeaderValue,
) -> Result<(ResponseHeader, Option<Bytes>)> {
    let mut head = ResponseHeader::build(response.status, Some(response.headers.len() + 4))?;
    head.insert_header(header::SERVER, server.clone())?;
    for (name, value) in &response.headers {
        head.append_header(name.clone(), value.clone())?;
    }
    let body = match &response.body {
        Some(body) => {
            if !body.is_empty() && !head.headers.contains_key(header::CONTENT_TYPE) {
                head.insert_header(header::CONTENT_TYPE, TEXT)?;
            }
            Some(body.clone())
        }
        None if response.status >= 400 => {
            head.insert_header(header::CONTENT_TYPE, HTML)?;
            Some(page(response.status))
        }
        None => None,
    };
    Ok((head, body))
}

/// RFC 9110 §6.4.1: these never have content.
const fn bodiless(status: u16) -> bool {
    status < 200 || status == 204 || status == 304
}

/// Tells the client that this connection takes no further request, once a graceful stop has begun.
/// Call it before a response head is written.
pub(super) fn close_when_stopping(session: &mut Session) {
    if session.is_process_shutting_down() {
        session.set_keepalive(None);
    }
}

/// The stock page for an error that has no body of its own.
#[must_use]
pub(super) fn page(status: u16) -> Bytes {
    let reason = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error");
    Bytes::from(format!(
        "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n<center><h1>{status} {reason}</h1></center>\r\n<hr><center>claviger</center>\r\n</body>\r\n</html>\r\n"
    ))
}
