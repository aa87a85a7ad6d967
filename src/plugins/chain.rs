//! Runs plugins in APISIX's order (`spec/00` §7.1–7.2): per phase the global rules first, then
//! the route's merged set, into which an authenticated consumer's plugins are merged. Chains are
//! sorted at load; merging a consumer's into a route's is a walk over two sorted lists, so that
//! no request builds anything.

use std::sync::Arc;

use bytes::Bytes;
use pingora_http::ResponseHeader;

use super::ctx::{RequestCtx, RequestState};
use super::def::{PluginDef, PluginKind};
use super::meta::Meta;
use super::phase::{
    Access, BeforeProxy, BodyFilter, Flow, HeaderFilter, Hooks, Log, Rewrite, Step,
};
use super::respond::Response;

/// One configured plugin, ready to run in any number of chains.
pub struct Plugin {
    def: &'static PluginDef,
    ordinal: usize,
    meta: Meta,
    hooks: Hooks,
}

impl Plugin {
    /// Joins what [`PluginDef::build`] made with its place in the order. `ordinal` is the
    /// plugin's position in [`super::ALL`].
    #[must_use]
    pub const fn new(ordinal: usize, def: &'static PluginDef, meta: Meta, hooks: Hooks) -> Self {
        Self {
            def,
            ordinal,
            meta,
            hooks,
        }
    }

    /// Stands in for a plugin that cannot run (a reference it needs is no value): answers 503.
    #[must_use]
    pub fn refusing(ordinal: usize, def: &'static PluginDef, meta: Meta) -> Self {
        let message = format!(
            "plugin {} is not available: a secret it needs is missing",
            def.name
        );
        let hooks = Hooks::of(Refuse(Response::error_msg(503, &message)))
            .rewrite()
            .access()
            .done();
        Self {
            def,
            ordinal,
            meta,
            hooks,
        }
    }

    /// APISIX's name of the plugin.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.def.name
    }

    fn priority(&self) -> i32 {
        self.meta.priority.unwrap_or(self.def.priority)
    }

    /// Whether the plugin runs for this request: `_meta.filter`, evaluated once and remembered.
    fn applies(&self, req: &mut RequestCtx<'_>) -> bool {
        let Some(filter) = &self.meta.filter else {
            return true;
        };
        let key = std::ptr::from_ref(self).addr();
        if let Some((_, applies)) = remembered(req.state, key) {
            return applies;
        }
        let applies = filter.matches(req);
        req.state.filters.push((key, applies));
        applies
    }

    /// The same where the request can no longer change.
    fn applied(&self, req: &RequestCtx<'_>) -> bool {
        let Some(filter) = &self.meta.filter else {
            return true;
        };
        let key = std::ptr::from_ref(self).addr();
        remembered(req.state, key).map_or_else(|| filter.matches(req), |(_, applies)| applies)
    }

    fn answer(&self, flow: Flow) -> Flow {
        match (flow, &self.meta.error_response) {
            (Flow::Respond(mut response), Some(body)) if response.status >= 400 => {
                response.body = Some(body.clone());
                Flow::Respond(response)
            }
            (flow, _) => flow,
        }
    }

    /// The same for checks of the body, of which `before` were pending before the plugin ran.
    fn answer_checks(&self, req: &mut RequestCtx<'_>, before: usize) {
        let Some(body) = &self.meta.error_response else {
            return;
        };
        for pending in req.state.body_checks.iter_mut().skip(before) {
            pending.error_body = Some(body.clone());
        }
    }
}

fn remembered(state: &RequestState, key: usize) -> Option<(usize, bool)> {
    state
        .filters
        .iter()
        .copied()
        .find(|(plugin, _)| *plugin == key)
}

struct Refuse(Response);

impl Rewrite for Refuse {
    fn rewrite<'a>(&'a self, _: &'a mut RequestCtx<'_>) -> Step<'a> {
        self.0.clone().into()
    }
}

impl Access for Refuse {
    fn access<'a>(&'a self, _: &'a mut RequestCtx<'_>) -> Step<'a> {
        self.0.clone().into()
    }
}

/// A set of plugins by their position in [`super::ALL`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct PluginSet(u128);

const _: () = assert!(
    super::ALL.len() <= 128,
    "PluginSet has a bit for each plugin"
);

impl PluginSet {
    const fn with(self, ordinal: usize) -> Self {
        Self(self.0 | 1 << ordinal)
    }

    const fn has(self, ordinal: usize) -> bool {
        self.0 & 1 << ordinal != 0
    }
}

struct Hook<H: ?Sized> {
    hook: Arc<H>,
    plugin: Arc<Plugin>,
}

/// A scope's plugins, per phase, highest priority first.
#[derive(Default)]
pub struct Chain {
    /// Every plugin configured here, disabled ones too: they override lower precedence.
    configured: PluginSet,
    /// Those that run.
    enabled: PluginSet,
    rewrite: Box<[Hook<dyn Rewrite>]>,
    access: Box<[Hook<dyn Access>]>,
    before_proxy: Box<[Hook<dyn BeforeProxy>]>,
    header_filter: Box<[Hook<dyn HeaderFilter>]>,
    body_filter: Box<[Hook<dyn BodyFilter>]>,
    log: Box<[Hook<dyn Log>]>,
    /// A plugin's request phase may ask for the request's body.
    reads_body: bool,
    /// All of them, those too that run in no phase: chains are shared by the addresses of their
    /// plugins, which must not come to mean others while a chain lives.
    _plugins: Box<[Arc<Plugin>]>,
}

impl Chain {
    /// Sorts one scope's plugins into phases. Plugins of the same priority keep their order.
    #[must_use]
    pub fn build(plugins: &[Arc<Plugin>]) -> Self {
        let mut sorted: Vec<&Arc<Plugin>> = plugins
            .iter()
            .filter(|plugin| !plugin.meta.disable)
            .collect();
        sorted.sort_by_key(|plugin| std::cmp::Reverse(plugin.priority()));
        let set = |plugins: &mut dyn Iterator<Item = &Arc<Plugin>>| {
            plugins.fold(PluginSet::default(), |set, plugin| set.with(plugin.ordinal))
        };
        Self {
            configured: set(&mut plugins.iter()),
            enabled: set(&mut sorted.iter().copied()),
            rewrite: phase(&sorted, |hooks| hooks.rewrite.clone()),
            access: phase(&sorted, |hooks| hooks.access.clone()),
            before_proxy: phase(&sorted, |hooks| hooks.before_proxy.clone()),
            header_filter: phase(&sorted, |hooks| hooks.header_filter.clone()),
            body_filter: phase(&sorted, |hooks| hooks.body_filter.clone()),
            log: phase(&sorted, |hooks| hooks.log.clone()),
            reads_body: sorted.iter().any(|plugin| plugin.hooks.reads_body),
            _plugins: plugins.into(),
        }
    }

    /// Whether the scope has no plugin at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.configured == PluginSet::default()
    }
}

fn phase<H: ?Sized>(
    sorted: &[&Arc<Plugin>],
    hook: impl Fn(&Hooks) -> Option<Arc<H>>,
) -> Box<[Hook<H>]> {
    sorted
        .iter()
        .filter_map(|plugin| {
            hook(&plugin.hooks).map(|hook| Hook {
                hook,
                plugin: Arc::clone(plugin),
            })
        })
        .collect()
}

/// The three scopes of one request.
#[derive(Clone)]
pub struct Scopes {
    /// Global rules.
    pub global: Arc<Chain>,
    /// The route with its service and plugin_config merged; empty where none matched.
    pub route: Arc<Chain>,
    /// The authenticated consumer with its group merged; `None` before that or without plugins.
    pub consumer: Option<Arc<Chain>>,
}

impl Scopes {
    /// Whether a request phase of any plugin may ask for the request's body.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        let consumer = self.consumer.as_ref();
        self.global.reads_body
            || self.route.reads_body
            || consumer.is_some_and(|consumer| consumer.reads_body)
    }

    /// Phase rewrite of global rules and route.
    pub async fn rewrite(&self, req: &mut RequestCtx<'_>) -> Flow {
        for hook in self
            .global_hooks(&self.global.rewrite)
            .chain(&self.route.rewrite)
        {
            if let flow @ Flow::Respond(_) = run_rewrite(hook, req).await {
                return flow;
            }
        }
        Flow::Continue
    }

    /// Rewrite of the plugins that came newly from the consumer, auth plugins excluded
    /// (`spec/00` §7.1 step 6). Differs from APISIX: a plugin on both group and consumer runs.
    pub async fn consumer_rewrite(&self, req: &mut RequestCtx<'_>) -> Flow {
        let Some(consumer) = &self.consumer else {
            return Flow::Continue;
        };
        for hook in &consumer.rewrite {
            let plugin = &hook.plugin;
            if self.route.configured.has(plugin.ordinal) || plugin.def.kind == PluginKind::Auth {
                continue;
            }
            if let flow @ Flow::Respond(_) = run_rewrite(hook, req).await {
                return flow;
            }
        }
        Flow::Continue
    }

    /// Phase access of global rules, then the merged set.
    pub async fn access(&self, req: &mut RequestCtx<'_>) -> Flow {
        for hook in self.hooks(|chain| &chain.access) {
            if !hook.plugin.applies(req) {
                continue;
            }
            let checks = req.state.body_checks.len();
            let flow = match hook.hook.access(req) {
                Step::Done(flow) => flow,
                Step::Wait(flow) => flow.await,
            };
            hook.plugin.answer_checks(req, checks);
            if let Flow::Respond(_) = flow {
                return hook.plugin.answer(flow);
            }
        }
        Flow::Continue
    }

    /// Phase before_proxy.
    pub fn before_proxy(&self, req: &mut RequestCtx<'_>) {
        for hook in self.hooks(|chain| &chain.before_proxy) {
            if hook.plugin.applies(req) {
                hook.hook.before_proxy(req);
            }
        }
    }

    /// Phase header_filter.
    pub fn header_filter(&self, req: &mut RequestCtx<'_>, response: &mut ResponseHeader) {
        for (name, value) in &req.state.answer_headers {
            // Whoever put it there has made sure that the name is valid.
            drop(response.insert_header(name.clone(), value));
        }
        for hook in self.hooks(|chain| &chain.header_filter) {
            if hook.plugin.applies(req) {
                hook.hook.header_filter(req, response);
            }
        }
    }

    /// Whether any plugin looks at response bodies.
    #[must_use]
    pub fn filters_body(&self) -> bool {
        self.hooks(|chain| &chain.body_filter).next().is_some()
    }

    /// Phase body_filter.
    pub fn body_filter(&self, req: &mut RequestCtx<'_>, body: &mut Option<Bytes>, end: bool) {
        for hook in self.hooks(|chain| &chain.body_filter) {
            if hook.plugin.applies(req) {
                hook.hook.body_filter(req, body, end);
            }
        }
    }

    /// Phase log.
    pub fn log(&self, req: &RequestCtx<'_>) {
        for hook in self.hooks(|chain| &chain.log) {
            if hook.plugin.applied(req) {
                hook.hook.log(req);
            }
        }
    }

    /// A phase's hooks in order: global rules, then route and consumer merged by priority, the
    /// consumer's instance standing in for the route's where both have the plugin.
    fn hooks<'a, H: ?Sized + 'a>(
        &'a self,
        phase: impl Fn(&'a Chain) -> &'a [Hook<H>],
    ) -> impl Iterator<Item = &'a Hook<H>> {
        let consumer = self.consumer.as_deref();
        let overridden = consumer.map_or(PluginSet::default(), |chain| chain.configured);
        let mut route = phase(&self.route)
            .iter()
            .filter(move |hook| !overridden.has(hook.plugin.ordinal))
            .peekable();
        let mut consumer = consumer.map_or(&[][..], phase_of(&phase)).iter().peekable();
        let merged = std::iter::from_fn(move || match (route.peek(), consumer.peek()) {
            (Some(ours), Some(theirs)) if ours.plugin.priority() >= theirs.plugin.priority() => {
                route.next()
            }
            (_, Some(_)) => consumer.next(),
            _ => route.next(),
        });
        self.global_hooks(phase(&self.global)).chain(merged)
    }

    /// Global hooks, less those of the prefer-route kind that the merged set has enabled itself.
    fn global_hooks<'a, H: ?Sized>(
        &'a self,
        hooks: &'a [Hook<H>],
    ) -> impl Iterator<Item = &'a Hook<H>> {
        hooks.iter().filter(|hook| {
            hook.plugin.def.kind != PluginKind::PreferRoute || !self.enables(hook.plugin.ordinal)
        })
    }

    /// Whether the merged set of route and consumer runs the plugin.
    fn enables(&self, ordinal: usize) -> bool {
        match self.consumer.as_deref() {
            Some(consumer) if consumer.configured.has(ordinal) => consumer.enabled.has(ordinal),
            _ => self.route.enabled.has(ordinal),
        }
    }
}

/// Gives the borrowed closure a signature that `map_or` can take by value.
fn phase_of<'a, H: ?Sized + 'a>(
    phase: &impl Fn(&'a Chain) -> &'a [Hook<H>],
) -> impl FnOnce(&'a Chain) -> &'a [Hook<H>] {
    move |chain| phase(chain)
}

async fn run_rewrite(hook: &Hook<dyn Rewrite>, req: &mut RequestCtx<'_>) -> Flow {
    if !hook.plugin.applies(req) {
        return Flow::Continue;
    }
    let checks = req.state.body_checks.len();
    let flow = match hook.hook.rewrite(req) {
        Step::Done(flow) => flow,
        Step::Wait(flow) => flow.await,
    };
    hook.plugin.answer_checks(req, checks);
    hook.plugin.answer(flow)
}

#[cfg(test)]
mod tests;
