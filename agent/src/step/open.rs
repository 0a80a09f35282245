//! Evaluates the surroundings of an action for the sequence: `when`, `foreach`, name, rows, limits and arguments.

use super::contract::{Asked, Item, Items, Needed, Opening, Refusal};
use super::name;
use crate::action::answer::{Fault, eval_line};
use crate::action::references::{Collector, References};
use crate::context::CellContext;
use crate::context::frame::{Handed, View};
use crate::context::secrecy::Secrecy;
use phalanx_shared::event::{Culprit, Failure};
use phalanx_shared::expr::{EvalError, Scope};
use phalanx_shared::language::model::{Action, DefineBody, Step, Until};
use phalanx_shared::node::{Expr, Template};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Date;
use std::collections::BTreeSet;

/// Evaluates the surroundings of an item in one scope.
pub struct Surroundings<'a> {
    context: &'a CellContext,
    view: &'a View,
    scope: Scope,
}

impl<'a> Surroundings<'a> {
    /// Creates an evaluator for a view.
    pub fn new(context: &'a CellContext, view: &'a View) -> Self {
        let scope = context.scope(view);
        Surroundings {
            context,
            view,
            scope,
        }
    }

    /// Evaluates `when`.
    pub async fn ask(&self, item: &Item) -> Result<Asked, Refusal> {
        let references = match item {
            Item::Phase(phase) => self.collector().phase(phase).done(),
            Item::Step(step) => self.collector().asking(step).done(),
        };
        self.ready(item, &references).await?;
        let (when, reason, until) = match item {
            Item::Phase(phase) => (&phase.when, &phase.reason, &phase.until),
            Item::Step(step) => (&step.when, &step.reason, &step.until),
        };
        let Some(when) = when else {
            return Ok(Asked::Run);
        };
        let asked = self.asked(when, reason.as_ref());
        let asked = asked.map_err(|error| self.refusal(item, &references, &error))?;
        match (&asked, until) {
            (Asked::Not { reason }, Some(until)) => match overdue(self.context, until, reason) {
                Some(message) => Err(self.too_late(item, until, message)),
                None => Ok(asked),
            },
            _ => Ok(asked),
        }
    }

    fn too_late(&self, item: &Item, until: &Until, message: String) -> Refusal {
        Refusal::Invalid {
            name: self.describe(item),
            outcome: Outcome::Failed,
            message,
            failure: Some(Box::new(Failure {
                place: self.context.place(until.span),
                ..Failure::default()
            })),
            culprit: None,
        }
    }

    fn asked(&self, when: &Expr, reason: Option<&Template>) -> Result<Asked, EvalError> {
        let evaluate = self.context.evaluate(&self.scope);
        if evaluate.holds(when)? {
            return Ok(Asked::Run);
        }
        let reason = match reason {
            Some(reason) => evaluate.text(reason)?,
            None => self.why_not(when)?,
        };
        Ok(Asked::Not { reason })
    }

    /// Returns the reason if the step gives none: the expression and its values.
    fn why_not(&self, when: &Expr) -> Result<String, EvalError> {
        let parts = self.context.cache.program(when)?.explain(&self.scope);
        let values: Vec<String> = parts
            .iter()
            .map(|part| format!("{} = {}", part.text, part.value))
            .collect();
        let expression = when.text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(if values.is_empty() {
            format!("when: {expression}")
        } else {
            format!("when: {expression} ({})", values.join(", "))
        })
    }

    /// Evaluates the list of a `foreach`.
    pub async fn list(&self, step: &Step) -> Result<Items, Refusal> {
        let item = Item::Step(std::sync::Arc::new(step.clone()));
        let Some(each) = &step.foreach else {
            return Ok(Items::default());
        };
        let references = self.collector().node(&each.items).done();
        self.ready(&item, &references).await?;
        let evaluate = self.context.evaluate(&self.scope);
        let held = evaluate.list(&each.items, "foreach").and_then(|values| {
            let held = self.context.hold(&values);
            held.map_err(|why| EvalError::new(each.items.span, why))?;
            let secret = Secrecy::new(self.context, self.view).node(&each.items);
            Ok(Items { values, secret })
        });
        held.map_err(|error| self.refusal(&item, &references, &error))
    }

    /// Evaluates name, rows, limits and arguments.
    pub async fn open(&self, item: &Item) -> Result<Opening, Refusal> {
        let references = match item {
            Item::Phase(phase) => self.collector().phase(phase).done(),
            Item::Step(step) => self.collector().opening(step).done(),
        };
        self.ready(item, &references).await?;
        self.opening(item)
            .map_err(|error| self.refusal(item, &references, &error))
    }

    fn opening(&self, item: &Item) -> Result<Opening, EvalError> {
        let evaluate = self.context.evaluate(&self.scope);
        match item {
            Item::Phase(phase) => Ok(Opening {
                name: phase.name.text.clone(),
                rows: evaluate
                    .optional_text(phase.verifies.as_ref())?
                    .into_iter()
                    .collect(),
                timeout: evaluate.optional_duration(phase.timeout.as_ref(), "timeout")?,
                ..Opening::default()
            }),
            Item::Step(step) => {
                let group = matches!(
                    step.action,
                    Action::Use(_) | Action::Steps(_) | Action::Parallel(_)
                );
                let limit = step.timeout.as_ref().filter(|_| group);
                let row = evaluate.optional_text(step.verifies.as_ref())?;
                let of_cases = step.case_rows.iter().map(|row| row.row.text.clone());
                let mut opening = Opening {
                    name: name::name(step, evaluate)?,
                    rows: row.into_iter().chain(of_cases).collect(),
                    timeout: evaluate.optional_duration(limit, "timeout")?,
                    params: self.arguments(step)?,
                    ..Opening::default()
                };
                if let Some(retry) = &step.retry {
                    opening.retries = evaluate.count(&retry.times, "retry.times")?;
                    let delay = evaluate.optional_duration(retry.delay.as_ref(), "retry.delay")?;
                    opening.delay = delay.unwrap_or_default();
                }
                Ok(opening)
            }
        }
    }

    /// Returns the arguments of a `use`: the values in `with`, else the parameters' defaults.
    fn arguments(&self, step: &Step) -> Result<Handed, EvalError> {
        let Action::Use(used) = &step.action else {
            return Ok(Handed::default());
        };
        let evaluate = self.context.evaluate(&self.scope);
        let secrecy = Secrecy::new(self.context, self.view);
        let mut arguments = Handed::default();
        for (name, node) in &used.with {
            arguments.insert(&name.text, evaluate.value(node)?, secrecy.node(node));
        }
        let defines = &self.context.spec.define;
        let define = defines
            .iter()
            .find(|define| define.name.text == used.define.text);
        let Some(define) = define.filter(|define| matches!(define.body, DefineBody::Steps { .. }))
        else {
            return Err(EvalError::new(
                used.define.span,
                format!("no steps are defined as {}", used.define.text),
            ));
        };
        for param in &define.params {
            let name = &param.name.text;
            match &param.default {
                Some(default) if !arguments.values.contains_key(name) => {
                    arguments.insert(name, evaluate.value(default)?, secrecy.node(default));
                }
                None if !arguments.values.contains_key(name) => {
                    return Err(EvalError::new(
                        used.define.span,
                        format!("{} needs the parameter {name}", used.define.text),
                    ));
                }
                _ => {}
            }
        }
        let held = self.context.hold(arguments.values.values());
        held.map_err(|why| EvalError::new(used.define.span, why))?;
        Ok(arguments)
    }

    fn collector(&self) -> Collector<'a> {
        Collector::new(&self.context.spec, &self.context.cache)
    }

    /// Waits for the services that are referred to by expressions evaluated before the action.
    async fn ready(&self, item: &Item, references: &References) -> Result<(), Refusal> {
        let services = super::services(self.context, references, self.view);
        if let Err(unavailable) = self.context.services.all_ready(&services).await {
            let fault = Fault::from(unavailable);
            let failure = match &fault {
                Fault::Down(down) => Some(Box::new(down.failure.clone())),
                _ => None,
            };
            return Err(Refusal::Invalid {
                name: self.describe(item),
                outcome: fault.outcome(),
                message: fault.reason(self.context),
                failure,
                culprit: fault.culprit(),
            });
        }
        Ok(())
    }

    fn refusal(&self, item: &Item, references: &References, error: &EvalError) -> Refusal {
        if let Some(needed) = needs(references, self.view) {
            return Refusal::Needs(needed);
        }
        Refusal::Invalid {
            name: self.describe(item),
            outcome: Outcome::Failed,
            message: eval_line(self.context, error),
            failure: Some(Box::new(Failure {
                place: self.context.place(error.span),
                ..Failure::default()
            })),
            culprit: None,
        }
    }

    fn describe(&self, item: &Item) -> String {
        match item {
            Item::Phase(phase) => phase.name.text.clone(),
            Item::Step(step) => name::lenient(step, self.context.evaluate(&self.scope)),
        }
    }
}

/// Returns the message of a skip that is no longer allowed: the run was submitted after its last day.
pub fn overdue(context: &CellContext, until: &Until, reason: &str) -> Option<String> {
    let submitted = context.job.submitted.filter(|at| until.is_over(*at))?;
    let day = Date::of(submitted).map(|day| format!(" (the run was submitted on {day})"));
    let place = context
        .place(until.span)
        .map(|place| format!(" at {place}"));
    Some(format!(
        "the skip ended with {}{}: {reason}; make the step run, or move the date{}",
        until.date,
        day.unwrap_or_default(),
        place.unwrap_or_default(),
    ))
}

/// Returns why a step that could not be evaluated is skipped instead of failed: it reads a step that has no captures.
pub fn needs(references: &References, view: &View) -> Option<Needed> {
    let mut ids: BTreeSet<String> = references.steps.clone();
    if references.computed_step {
        ids.extend(texts_in_view(view));
    }
    ids.iter().find_map(|id| {
        let without = view
            .step(id)?
            .records()
            .find(|record| !matches!(record.outcome, Outcome::Passed | Outcome::Flaky))?;
        let reason = without.reason.as_deref().unwrap_or("no reason is known");
        let further = match &without.culprit {
            Some(step @ Culprit::Step { .. }) => Some(step.clone()),
            Some(Culprit::Service { .. }) | None => None,
        };
        Some(Needed {
            reason: format!("needs {id}, {}: {reason}", without.outcome),
            culprit: further.unwrap_or_else(|| Culprit::Step {
                id: id.clone(),
                outcome: without.outcome,
            }),
        })
    })
}

/// Returns the texts among parameters and variables, from which a computed name may come.
pub fn texts_in_view(view: &View) -> Vec<String> {
    let params = view
        .params()
        .into_iter()
        .flat_map(|params| params.values.values());
    let variables = view
        .frames()
        .filter_map(|frame| frame.variable.as_ref().map(|(_, value)| value));
    params
        .chain(variables)
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect()
}
