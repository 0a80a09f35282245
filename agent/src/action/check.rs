//! Checks: each expectation has one outcome, and a failed one shows its parts.

use super::answer::Implied;
use crate::context::CellContext;
use phalanx_shared::event::{CheckResult, Part};
use phalanx_shared::expr::Scope;
use phalanx_shared::node::Expr;

/// Evaluates all checks. The implied check comes first; if it fails, the others aren't evaluated.
pub fn all(
    context: &CellContext,
    expect: &[Expr],
    implied: Option<Implied>,
    scope: &Scope,
) -> Vec<CheckResult> {
    let mut results = Vec::with_capacity(expect.len() + 1);
    if let Some(implied) = implied.filter(|implied| !mentioned(context, expect, *implied)) {
        let result = judge(implied);
        let passed = result.passed;
        results.push(result);
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
pub fn one(context: &CellContext, expr: &Expr, scope: &Scope) -> CheckResult {
    let failed = |parts, error| CheckResult {
        expression: expr.text.trim().to_owned(),
        passed: false,
        parts,
        error,
    };
    let program = match context.cache.program(expr) {
        Ok(program) => program,
        Err(diagnostic) => return failed(Vec::new(), Some(diagnostic.message)),
    };
    match program.eval_bool(scope) {
        Ok(true) => CheckResult {
            expression: expr.text.trim().to_owned(),
            passed: true,
            parts: Vec::new(),
            error: None,
        },
        Ok(false) => failed(program.explain(scope), None),
        Err(error) => {
            let help = error
                .help
                .as_ref()
                .map_or(String::new(), |help| format!(" ({help})"));
            failed(
                program.explain(scope),
                Some(format!("{}{help}", error.message)),
            )
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
