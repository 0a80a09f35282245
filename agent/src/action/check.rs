//! Checks: each expectation has one outcome, and a failed one shows its parts.

use super::answer::Implied;
use crate::context::CellContext;
use phalanx_shared::event::{CheckResult, Part};
use phalanx_shared::expr::Scope;
use phalanx_shared::node::Expr;

/// A check's result, and whether it read a result of the action that isn't complete.
pub struct Judged {
    /// The result.
    pub result: CheckResult,
    /// Whether the check can't be judged because it read a part of a value.
    pub incomplete: bool,
}

/// Returns the check that an action implies, unless one of the step's own checks mentions its result.
pub fn implied(
    context: &CellContext,
    expect: &[Expr],
    implied: Option<Implied>,
) -> Option<Implied> {
    implied.filter(|implied| !mentioned(context, expect, *implied))
}

/// Evaluates all checks. The implied check comes first, unless a check mentions its result; if it fails, the others aren't evaluated.
pub fn all(
    context: &CellContext,
    expect: &[Expr],
    implied: Option<Implied>,
    scope: &Scope,
) -> Vec<Judged> {
    let mut results = Vec::with_capacity(expect.len() + 1);
    if let Some(implied) = self::implied(context, expect, implied) {
        let result = judge(implied);
        let passed = result.passed;
        results.push(Judged {
            result,
            incomplete: false,
        });
        if !passed {
            return results;
        }
    }
    results.extend(expect.iter().map(|expr| one(context, expr, scope)));
    results
}

/// Evaluates an implied check.
pub fn judge(implied: Implied) -> CheckResult {
    let (expression, name, value, passed) = match implied {
        Implied::Status(status) => (
            "status is 2xx",
            "status",
            i64::from(status),
            (200..300).contains(&status),
        ),
        Implied::ExitCode(code) => ("exit_code == 0", "exit_code", code, code == 0),
    };
    let part = Part {
        text: name.to_owned(),
        value: value.to_string(),
    };
    CheckResult {
        expression: expression.to_owned(),
        passed,
        parts: if passed { Vec::new() } else { vec![part] },
        error: None,
    }
}

/// Evaluates one expectation. An evaluation error counts as a failed check.
pub fn one(context: &CellContext, expr: &Expr, scope: &Scope) -> Judged {
    let judged = |passed, parts, error, incomplete| Judged {
        result: CheckResult {
            expression: expr.text.trim().to_owned(),
            passed,
            parts,
            error,
        },
        incomplete,
    };
    let program = match context.cache.program(expr) {
        Ok(program) => program,
        Err(diagnostic) => return judged(false, Vec::new(), Some(diagnostic.message), false),
    };
    match program.eval_bool(scope) {
        Ok(true) => judged(true, Vec::new(), None, false),
        Ok(false) => judged(false, program.explain(scope), None, false),
        Err(error) => {
            let help = error
                .help
                .as_ref()
                .map_or(String::new(), |help| format!(" ({help})"));
            let text = format!("{}{help}", error.message);
            judged(false, program.explain(scope), Some(text), error.incomplete)
        }
    }
}

fn mentioned(context: &CellContext, expect: &[Expr], implied: Implied) -> bool {
    let name = match implied {
        Implied::Status(_) => "status",
        Implied::ExitCode(_) => "exit_code",
    };
    expect.iter().any(|expr| {
        context
            .cache
            .program(expr)
            .is_ok_and(|program| program.mentions(name))
    })
}
