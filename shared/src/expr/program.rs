//! A parsed expression: what it refers to, what it calls, and how it is brought into the form that is evaluated.

use super::functions::{
    AMONG, DISTINCT, EACH, MATCHES, NAMESPACES, RANGE, TYPES, arities, environment,
};
use super::place::place;
use super::scan::{self, Flaw};
use super::scope::Scope;
use super::stack::{on_own_stack, with_room};
use super::tree::{Tree, children, is_function};
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::node;
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};
use serde_json::Value;
use std::fmt;
use std::ops::Range;

/// A CEL expression, parsed and checked as far as it can be without knowing any name.
#[derive(Debug)]
pub struct Program {
    pub(super) tree: Tree,
    pub(super) span: Span,
    references: Vec<Reference>,
    calls: Vec<Call>,
    /// Of an expression that is a name and fields of it: both. Most interpolations are.
    fields: Option<(String, Vec<String>)>,
    /// How deep its tree can be.
    pub(super) height: usize,
}

/// Without memory for a stack there is no evaluation.
pub(super) fn no_room(error: &std::io::Error) -> String {
    format!("there is no memory to evaluate the expression: {error}")
}

/// A use of a name that the expression doesn't bind itself, with the part of its path that is written out:
/// `services['a-b'].port[80]` is root `services`, path `a-b`, `port`, `80`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The first name.
    pub root: String,
    /// Where the first name stands.
    pub root_span: Span,
    /// Fields and literal keys that follow, up to the first that is computed.
    pub path: Vec<Segment>,
    /// Bytes of the whole path in the expression's (or template's) text.
    pub range: Range<usize>,
    /// Place of the whole path in the file.
    pub span: Span,
}

/// A field or a literal key of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its name or number.
    pub key: Key,
    /// Written `.?key` or `[?key]`, or tested by `has()`: it may be missing.
    pub optional: bool,
    /// Where it stands.
    pub span: Span,
}

/// What a path's segment selects by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// `.name` or `['name']`.
    Name(String),
    /// `[0]`.
    Index(i64),
}

impl Key {
    /// The name, if it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Key::Name(name) => Some(name),
            Key::Index(_) => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Name(name) => f.write_str(name),
            Key::Index(index) => write!(f, "{index}"),
        }
    }
}

/// A call of a function that isn't built in: a defined one, `file`, or nobody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The function.
    pub name: String,
    /// The number of arguments, the target of a method call included.
    pub arity: usize,
    /// Whether it is called as a method: `x.name()`.
    pub method: bool,
    /// Where the name stands.
    pub span: Span,
}

impl Program {
    /// Parses an expression; the error is at the exact place of what is wrong.
    pub fn parse(expr: &node::Expr) -> Result<Program, Diagnostic> {
        parse(&expr.text, expr.span, |range| {
            place(expr.span, &expr.text, range)
        })
    }

    /// Every use of a name that the expression doesn't bind itself, in the order of the text.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Calls of functions that aren't built in.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.tree.text
    }

    /// Where the text stands.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The value of an expression that is a name and fields of it, read without an evaluator.
    pub(super) fn read_fields(&self, scope: &Scope) -> Option<Value> {
        let (root, path) = self.fields.as_ref()?;
        let mut value = scope.json(root)?;
        for field in path {
            value = value.as_object()?.get(field)?;
        }
        Some(value.clone())
    }

    /// Whether any use of `root` is in it.
    pub fn mentions(&self, root: &str) -> bool {
        self.references.iter().any(|r| r.root == root)
    }
}

/// Parses CEL text; `locate` gives the place of a range of it.
pub(super) fn parse(
    text: &str,
    span: Span,
    locate: impl Fn(&Range<usize>) -> Span,
) -> Result<Program, Diagnostic> {
    let located = |flaw: Flaw| Diagnostic {
        help: flaw.help,
        ..Diagnostic::error(locate(&flaw.range), flaw.message)
    };
    let checked = scan::check(text).map_err(located)?;
    let env = environment().map_err(|e| Diagnostic::error(span, e))?;
    let parsed = match checked.pairs.is_empty() {
        true => with_room(checked.height, || env.parser().parse_with_source_info(text)),
        false => on_own_stack(checked.height, || env.parser().parse_with_source_info(text)),
    };
    let (root, info) = parsed
        .map_err(|e| Diagnostic::error(span, no_room(&e)))?
        .map_err(|errors| located(super::syntax::flaw(text, &errors)))?;
    let mut tree = Tree {
        text: text.to_owned(),
        root: IdedExpr::default(),
        info,
        pairs: checked.pairs,
    };
    let mut survey = Survey {
        tree: &tree,
        locate: &locate,
        bound: Vec::new(),
        references: Vec::new(),
        calls: Vec::new(),
    };
    survey.visit(&root).map_err(located)?;
    let (mut references, calls) = (survey.references, survey.calls);
    references.sort_by_key(|r| r.range.start);
    references.dedup_by(|a, b| a.range == b.range);
    tree.root = root;
    prepare(&mut tree.root);
    Ok(Program {
        height: checked.height,
        fields: fields(&tree.root),
        tree,
        span,
        references,
        calls,
    })
}

fn fields(part: &IdedExpr) -> Option<(String, Vec<String>)> {
    match &part.expr {
        Expr::Ident(name) => Some((name.clone(), Vec::new())),
        Expr::Select(select) if !select.test => {
            let (root, mut path) = fields(&select.operand)?;
            path.push(select.field.clone());
            Some((root, path))
        }
        _ => None,
    }
}

/// Collects references and calls, and finds calls that can't be right whatever the values are.
struct Survey<'t> {
    tree: &'t Tree,
    locate: &'t dyn Fn(&Range<usize>) -> Span,
    /// Variables of the macros around the visited part.
    bound: Vec<String>,
    references: Vec<Reference>,
    calls: Vec<Call>,
}

impl Survey<'_> {
    fn visit(&mut self, part: &IdedExpr) -> Result<(), Flaw> {
        if let Some(reference) = self.reference(part) {
            self.references.extend(reference);
            return Ok(());
        }
        match &part.expr {
            Expr::Comprehension(macro_) => return self.visit_macro(macro_),
            Expr::Struct(message) => {
                return Err(Flaw::new(
                    self.tree.range(part),
                    format!(
                        "`{}{{…}}` is a message, which the language doesn't have",
                        message.type_name
                    ),
                )
                .help("a map is written {'key': value}"));
            }
            Expr::Call(call) if is_function(&call.func_name) && self.visit_call(part, call)? => {
                return call.args.iter().try_for_each(|arg| self.visit(arg));
            }
            _ => {}
        }
        children(part)
            .into_iter()
            .try_for_each(|child| self.visit(child))
    }

    fn visit_macro(&mut self, macro_: &ComprehensionExpr) -> Result<(), Flaw> {
        self.visit(&macro_.iter_range)?;
        self.visit(&macro_.accu_init)?;
        let outer = self.bound.len();
        self.bound.push(macro_.iter_var.clone());
        self.bound.push(macro_.accu_var.clone());
        self.bound.extend(macro_.iter_var2.clone());
        let inside = [&macro_.loop_cond, &macro_.loop_step, &macro_.result]
            .into_iter()
            .try_for_each(|part| self.visit(part));
        self.bound.truncate(outer);
        inside
    }

    /// Checks a call against the built-in functions; `true` if its target is a namespace rather than a value.
    fn visit_call(&mut self, part: &IdedExpr, call: &CallExpr) -> Result<bool, Flaw> {
        let bracket = self.tree.token(part.id).start;
        let name_range = self.tree.name_before(bracket);
        let namespace = call
            .target
            .as_deref()
            .and_then(|target| match &target.expr {
                Expr::Ident(name) if NAMESPACES.contains(&name.as_str()) => Some(name),
                _ => None,
            });
        let name = match namespace {
            Some(namespace) => format!("{namespace}.{}", call.func_name),
            None => call.func_name.clone(),
        };
        let method = call.target.is_some() && namespace.is_none();
        let count = call.args.len();
        match arities(&name) {
            Some(arities) => check_arity(&name, arities, method, count, name_range)?,
            None => self.calls.push(Call {
                name: name.clone(),
                arity: count + usize::from(method),
                method,
                span: (self.locate)(&name_range),
            }),
        }
        if name == "file" {
            self.calls.push(Call {
                name,
                arity: count,
                method,
                span: (self.locate)(&self.tree.name_before(bracket)),
            });
        }
        Ok(namespace.is_some())
    }

    /// `None` if the part is no path; `Some(None)` if it is one that refers to nothing outside.
    fn reference(&self, part: &IdedExpr) -> Option<Option<Reference>> {
        let mut path = Vec::new();
        let (root, root_range) = self.path(part, &mut path)?;
        if root.starts_with(['@', '#'])
            || self.bound.contains(&root)
            || (path.is_empty() && TYPES.contains(&root.as_str()))
        {
            return Some(None);
        }
        let range = match &part.expr {
            Expr::Select(select) if select.test => root_range.start..path_end(self.tree, part),
            _ => self.tree.range(part),
        };
        Some(Some(Reference {
            root,
            root_span: (self.locate)(&root_range),
            path,
            span: (self.locate)(&range),
            range,
        }))
    }

    /// The root of a path of fields and literal keys, the segments pushed in order.
    fn path(&self, part: &IdedExpr, path: &mut Vec<Segment>) -> Option<(String, Range<usize>)> {
        let token = self.tree.token(part.id);
        match &part.expr {
            Expr::Ident(name) => Some((name.clone(), token)),
            Expr::Select(select) => {
                let range = match select.test {
                    true => {
                        path_end(self.tree, part) - select.field.len()..path_end(self.tree, part)
                    }
                    false => self.tree.name_after(token.end),
                };
                let root = self.path(&select.operand, path)?;
                let span = (self.locate)(&range);
                let key = Key::Name(select.field.clone());
                path.push(Segment {
                    key,
                    optional: select.test,
                    span,
                });
                Some(root)
            }
            Expr::Call(call) => {
                let (operand, index) = match call.args.as_slice() {
                    [operand, index] => (operand, index),
                    _ => return None,
                };
                let (optional, range) = match call.func_name.as_str() {
                    operators::INDEX => (false, self.tree.range(index)),
                    operators::OPT_INDEX => (true, self.tree.range(index)),
                    operators::OPT_SELECT => (true, self.tree.name_after(token.end)),
                    _ => return None,
                };
                let key = literal_key(index)?;
                let root = self.path(operand, path)?;
                let span = (self.locate)(&range);
                path.push(Segment {
                    key,
                    optional,
                    span,
                });
                Some(root)
            }
            _ => None,
        }
    }
}

/// The end of the field in `has(a.b)`: the last word before the bracket closes.
fn path_end(tree: &Tree, part: &IdedExpr) -> usize {
    let close = tree.range(part).end.saturating_sub(1);
    tree.name_before(close).end
}

fn literal_key(index: &IdedExpr) -> Option<Key> {
    match &index.expr {
        Expr::Literal(LiteralValue::String(name)) => Some(Key::Name(name.inner().to_owned())),
        Expr::Literal(LiteralValue::Int(index)) => Some(Key::Index(*index.inner())),
        _ => None,
    }
}

fn check_arity(
    name: &str,
    (global, method): (&[usize], &[usize]),
    as_method: bool,
    count: usize,
    range: Range<usize>,
) -> Result<(), Flaw> {
    let (accepted, other) = match as_method {
        true => (method, global),
        false => (global, method),
    };
    if accepted.contains(&count) {
        return Ok(());
    }
    if accepted.is_empty() {
        let (how, example) = match as_method {
            true => ("a function, not a method", format!("{name}(x)")),
            false => (
                "a method, not a function",
                format!("x.{name}({})", if other == [0] { "" } else { "…" }),
            ),
        };
        return Err(Flaw::new(range, format!("`{name}` is {how}")).help(format!("write {example}")));
    }
    let expected = accepted
        .iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join(" or ");
    let plural = if accepted == [1] { "" } else { "s" };
    Err(Flaw::new(
        range,
        format!("`{name}` takes {expected} argument{plural}, not {count}"),
    ))
}

/// Brings the tree into the form that is evaluated: iteration in key order and metered, `matches` with a cache.
fn prepare(part: &mut IdedExpr) {
    match &mut part.expr {
        Expr::Call(call) => {
            call.target.as_deref_mut().into_iter().for_each(prepare);
            call.args.iter_mut().for_each(prepare);
            prepare_call(call);
        }
        Expr::Select(select) => prepare(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(prepare),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let cel::common::ast::EntryExpr::MapEntry(entry) = &mut entry.expr {
                    prepare(&mut entry.key);
                    prepare(&mut entry.value);
                }
            }
        }
        Expr::Comprehension(macro_) => {
            for inner in [
                &mut macro_.iter_range,
                &mut macro_.accu_init,
                &mut macro_.loop_step,
                &mut macro_.result,
            ] {
                prepare(inner);
            }
            wrap(&mut macro_.iter_range, EACH);
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
    }
}

/// Leads calls of what the crate does too slowly or without bound to the functions that replace it.
fn prepare_call(call: &mut CallExpr) {
    match (call.func_name.as_str(), call.args.as_mut_slice()) {
        ("matches", _) => call.func_name = MATCHES.to_owned(),
        ("distinct", _) => call.func_name = DISTINCT.to_owned(),
        ("range", [_]) if is_namespace(call.target.as_deref(), "lists") => {
            call.func_name = RANGE.to_owned();
            call.target = None;
        }
        (operators::IN, [_, list]) => wrap(list, AMONG),
        _ => {}
    }
}

fn is_namespace(target: Option<&IdedExpr>, name: &str) -> bool {
    target.is_some_and(|target| matches!(&target.expr, Expr::Ident(found) if found == name))
}

fn wrap(part: &mut IdedExpr, function: &str) {
    let id = part.id;
    let inner = std::mem::take(part);
    *part = IdedExpr {
        id,
        expr: Expr::Call(CallExpr {
            func_name: function.to_owned(),
            target: None,
            args: vec![inner],
        }),
    };
}
