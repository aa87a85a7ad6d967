//! The request phases over a session's head, in APISIX's order (`spec/00` §7.1).

use pingora_proxy::Session;

use super::Gateway;
use super::body::Source;
use super::ctx::Exchange;
use crate::consumer::GroupLink;
use crate::plugins::{Chain, Flow, RequestCtx, RequestState, Response, Scopes};

/// Phases that run without a look at anything but the request.
#[derive(Clone, Copy)]
enum Stretch {
    /// Rewrite.
    Rewrite,
    /// Rewrite of what the consumer brought, then access.
    ConsumerAndAccess,
    /// Rewrite, then access: no route matched.
    Unmatched,
}

impl Gateway {
    /// Without a route only the global rules run, then it is 404 (`spec/00` §7.1 step 3, §9.5).
    pub(super) async fn unmatched(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
    ) -> Response {
        let answer = self.run(session, exchange, Stretch::Unmatched).await;
        answer.unwrap_or_else(|| Response::error_msg(404, "404 Route Not Found"))
    }

    /// `spec/00` §7.1, steps 5–7.
    pub(super) async fn run_request_phases(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
    ) -> Option<Response> {
        let answer = self.run(session, exchange, Stretch::Rewrite).await;
        if answer.is_some() {
            return answer;
        }
        if let Some(attached) = &exchange.state.consumer {
            if let GroupLink::Missing(_) = attached.consumer.group {
                return Some(Response::status(503));
            }
            let plugins = attached.consumer.plugins.clone();
            exchange.scopes.consumer = plugins.and_then(|plugins| plugins.downcast::<Chain>().ok());
        }
        self.run(session, exchange, Stretch::ConsumerAndAccess)
            .await
    }

    /// Runs over the session's own head, or, where a plugin may ask for the body, over a copy:
    /// the session is needed to read it.
    async fn run(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        stretch: Stretch,
    ) -> Option<Response> {
        let Exchange {
            state,
            scopes,
            held,
            ..
        } = exchange;
        if !scopes.reads_body() {
            let mut req = RequestCtx::new(session.req_header_mut(), state);
            return stretch.run(scopes, &mut req).await;
        }
        let mut head = session.req_header().clone();
        let mut source = Source::new(session, held, &self.settings);
        let answer = run_over(&mut head, state, &mut source, scopes, stretch).await;
        source.put_back(head);
        // Plugins may go on without the body; the upstream cannot.
        answer.or_else(|| held.broken().map(Response::status))
    }
}

async fn run_over(
    head: &mut pingora_http::RequestHeader,
    state: &mut RequestState,
    source: &mut Source<'_>,
    scopes: &Scopes,
    stretch: Stretch,
) -> Option<Response> {
    let mut req = RequestCtx::new(head, state).with_body(source);
    stretch.run(scopes, &mut req).await
}

impl Stretch {
    async fn run(self, scopes: &Scopes, req: &mut RequestCtx<'_>) -> Option<Response> {
        let first = match self {
            Self::Rewrite | Self::Unmatched => scopes.rewrite(req).await,
            Self::ConsumerAndAccess => scopes.consumer_rewrite(req).await,
        };
        let flow = match (first, self) {
            (Flow::Continue, Self::ConsumerAndAccess | Self::Unmatched) => scopes.access(req).await,
            (flow, _) => flow,
        };
        match flow {
            Flow::Respond(response) => Some(*response),
            Flow::Continue => None,
        }
    }
}
