//! What holds and yet cannot work: names of nobody, and doors without a key. Looks at declarations
//! only, so that a value that changes changes nothing here.

use std::collections::{HashMap, HashSet};

use super::compile::{Compilation, Scope};
use super::plugins::join;
use super::references::{self, Holder, Owner};
use crate::config::Documents;
use crate::config::resource::{Item, Settings};
use crate::diagnostic::Diagnostic;
use crate::plugins::mentions::{self, Mention, Named};
use crate::plugins::{self, Meta, PluginKind};

/// Everything there is to say about these documents.
pub(super) fn advise(documents: &Documents, run: &Compilation<'_>) -> Vec<Diagnostic> {
    let mut advice = Advice {
        names: Names::default(),
        documents,
        run,
        closed: HashMap::new(),
        found: Vec::new(),
    };
    let mut keys = HashSet::new();
    references::consumer_holders(documents, &mut |_, owner, holder| {
        if let Holder::Plugin(plugin, settings) = holder {
            match plugins::find(plugin) {
                Some((_, def)) if def.kind == PluginKind::Auth => {
                    if !keys.contains(def.name) && is_enabled(settings) {
                        keys.insert(def.name);
                    }
                }
                Some(_) => advice.look(owner, plugin, settings, None),
                None => {}
            }
        }
    });
    references::other_holders(documents, &mut |owner, holder| {
        if let Holder::Plugin(plugin, settings) = holder {
            // A group's auth plugin never runs.
            let keys = (owner.kind != "consumer_groups").then_some(&keys);
            advice.look(owner, plugin, settings, keys);
        }
    });
    advice.done()
}

fn is_enabled(settings: &Settings) -> bool {
    let may_be_off = settings.with_text(|text| text.contains("\"_meta\""));
    !(may_be_off && Meta::parse(&settings.json()).is_ok_and(|meta| meta.disable))
}

struct Advice<'a> {
    names: Names<'a>,
    documents: &'a Documents,
    run: &'a Compilation<'a>,
    /// Doors that nobody can open, by plugin: the place in `found`, and how many more there are.
    closed: HashMap<&'static str, (usize, usize)>,
    found: Vec<Diagnostic>,
}

/// Names of what is declared, gathered when first asked for.
#[derive(Default)]
struct Names<'a>([Option<HashSet<&'a str>>; 4]);

impl<'a> Names<'a> {
    fn has(&mut self, of: Named, name: &str, documents: &'a Documents) -> bool {
        fn ids<T>(items: &[Item<T>]) -> HashSet<&str> {
            items.iter().map(|item| &*item.id).collect()
        }
        let names = self.0[of as usize].get_or_insert_with(|| match of {
            Named::Consumer => ids(&documents.consumers),
            Named::Group => ids(&documents.consumer_groups),
            Named::Service => ids(&documents.services),
            Named::Route => ids(&documents.routes),
        });
        names.contains(name)
    }
}

impl Advice<'_> {
    /// Looks at a plugin. `keys`: the auth plugins that somebody has a credential of, where the
    /// plugin can be a door.
    fn look(
        &mut self,
        owner: Owner<'_>,
        plugin: &str,
        settings: &Settings,
        keys: Option<&HashSet<&'static str>>,
    ) {
        let said = settings.with_text(|text| mentions::said(plugin, text, || settings.json()));
        let field = |inner: &str| join(&format!("plugins.{plugin}"), inner);
        for Mention {
            field: inner,
            of,
            name,
        } in &said.mentions
        {
            if !self.names.has(*of, name, self.documents) {
                self.warn(owner, "unknown-name", &field(inner), unknown(*of, inner));
            }
        }
        let Some(keys) = keys else { return };
        for (door, inner) in said.doors.iter().filter(|(door, _)| !keys.contains(door)) {
            if let Some((_, more)) = self.closed.get_mut(door) {
                *more += 1;
            } else {
                self.closed.insert(door, (self.found.len(), 0));
                self.warn(owner, "nobody-can-pass", &field(inner), CLOSED);
            }
        }
    }

    fn warn(&mut self, owner: Owner<'_>, code: &'static str, field: &str, message: &str) {
        let mut scope = Scope {
            run: self.run,
            owner: &format!("{}/{}", owner.kind, owner.id),
            place: owner.place,
            diagnostics: &mut self.found,
        };
        scope.warn(code, field, message);
    }

    fn done(mut self) -> Vec<Diagnostic> {
        for (at, more) in self.closed.into_values().filter(|(_, more)| *more > 0) {
            if let Some(found) = self.found.get_mut(at) {
                found.message = format!("{CLOSED} (also at {more} more places)");
            }
        }
        self.found
    }
}

const CLOSED: &str = "nobody can pass: no consumer has a credential of this plugin, and there is no anonymous_consumer";

fn unknown(of: Named, field: &str) -> &'static str {
    match of {
        Named::Consumer if field.ends_with("anonymous_consumer") => {
            "expected the username of a valid consumer; without it, what fails to authenticate answers 401"
        }
        Named::Consumer => "expected the username of a valid consumer; this entry fits nobody",
        Named::Group => "expected the id of a valid consumer group; this entry fits nobody",
        Named::Service => "expected the id of a valid service; this entry fits nothing",
        Named::Route => "expected the id of a valid route; this entry fits nothing",
    }
}
