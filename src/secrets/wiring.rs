//! Managers whose fields refer into other managers: which of them can never come into force.
//! Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::install::{Need, Template};
use super::settings::ManagerProblem;

/// Declared managers whose fields could be read, by id.
pub(super) type Templates = HashMap<Arc<str>, Arc<Template>>;

/// Managers that need an undeclared one, or, through others or not, themselves.
pub(super) fn impossible(
    templates: &Templates,
    declared: &dyn Fn(&str) -> bool,
) -> Vec<ManagerProblem> {
    let mut ids: Vec<_> = templates.keys().collect();
    ids.sort();
    let mut problems = Vec::new();
    for id in ids {
        let needs = &templates[id].needs;
        let undeclared = needs.iter().find(|need| !declared(&need.manager));
        let found = match undeclared {
            Some(need) => Some((need, format!("{}: no secret conf", need.reference))),
            None => needs.iter().find_map(|need| {
                let road = road(templates, &need.manager, id)?;
                let round = [&[Arc::clone(id)], road.as_slice()].concat();
                let round = round.join(" → ");
                Some((need, format!("managers need each other: {round}")))
            }),
        };
        if let Some((need, message)) = found {
            problems.push(ManagerProblem {
                id: Arc::clone(id),
                field: need.field.clone(),
                message,
            });
        }
    }
    problems
}

/// The managers on the shortest way from one to another, both included.
fn road(templates: &Templates, from: &Arc<str>, to: &Arc<str>) -> Option<Vec<Arc<str>>> {
    let mut seen = HashSet::from([from]);
    let mut roads = vec![vec![Arc::clone(from)]];
    while !roads.is_empty() {
        let mut longer = Vec::new();
        for road in roads {
            let end = road.last()?;
            if end == to {
                return Some(road);
            }
            let needs = templates
                .get(end)
                .map_or(&[][..], |end| end.needs.as_slice());
            for Need { manager, .. } in needs {
                if seen.insert(manager) {
                    longer.push([road.as_slice(), &[Arc::clone(manager)]].concat());
                }
            }
        }
        roads = longer;
    }
    None
}
