//! A parsed expression: its references, its calls, and its conversion to the form that is evaluated.

use super::functions::{
    AMONG, DISTINCT, EACH, HELD, JOIN, MATCHES, NAMESPACES, RANGE, REPLACE, SEEN, SPLIT, TYPES,
    arities, environment, is_wrapper,
};
use super::keys::MatrixKeys;
use super::place::place;
use super::scan::{self, Flaw, Kind};
use super::stack::{on_own_stack, with_room};
use super::tree::{Tree, children, is_function};
use crate::diagnostic::{Diagnostic, Span};
use crate::node;
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};
use std::fmt;
use std::ops::Range;

/// A CEL expression, parsed and checked as far as possible without knowing any names.
#[derive(Debug)]
pub struct Program {
    pub(super) tree: Tree,
    pub(super) span: Span,
    references: Vec<Reference>,
    calls: Vec<Call>,
    comparisons: Vec<Comparison>,
    /// Name and fields of an expression that is only a path, such as `a.b.c`. Most interpolations are.
    fields: Option<(String, Vec<String>)>,
    /// Upper bound of the tree's height.
    pub(super) height: usize,
}

/// Message if there is no memory for the evaluation's stack.
pub(super) fn no_room(error: &std::io::Error) -> String {
    format!("there is no memory to evaluate the expression: {error}")
}

/// A use of a name that the expression doesn't bind itself, with the literal part of its path:
/// `services['a-b'].port[80]` has root `services` and path `a-b`, `port`, `80`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// First name of the path.
    pub root: String,
    /// Place of the first name.
    pub root_span: Span,
    /// Fields and literal keys that follow, up to the first computed one.
    pub path: Vec<Segment>,
    /// Byte range of the whole path in the text of the expression or template.
    pub range: Range<usize>,
    /// Place of the whole path in the file.
    pub span: Span,
}

/// A field or a literal key of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Name or number of the segment.
    pub key: Key,
    /// Whether the segment may be missing: written `.?key` or `[?key]`, or tested by `has()`.
    pub optional: bool,
    /// Place of the segment.
    pub span: Span,
}

/// The key of a path's segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// `.name` or `['name']`.
    Name(String),
    /// `[0]`.
    Index(i64),
}

impl Key {
    /// Returns the name; `None` for an index.
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

/// A bare name that is compared with a value of a known type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The compared name.
    pub name: String,
    /// The other side of the comparison.
    pub other: Other,
    /// Place of the other side.
    pub span: Span,
}

/// The other side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Other {
    /// A literal text.
    Text(String),
    /// `duration('…')`, with its argument.
    Duration(String),
}

/// A call of a function that isn't built in: a defined one, `file`, or an unknown one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Name of the function.
    pub name: String,
    /// Number of arguments, including the target of a method call.
    pub arity: usize,
    /// Whether it is called as a method: `x.name()`.
    pub method: bool,
    /// Place of the name.
    pub span: Span,
}

impl Program {
    /// Parses an expression that doesn't read `matrix`. The error has the exact place of the problem.
    pub fn parse(expr: &node::Expr) -> Result<Program, Diagnostic> {
        Self::parse_knowing(expr, &MatrixKeys::default())
    }

    /// Parses an expression in which `matrix` has these keys.
    pub fn parse_knowing(expr: &node::Expr, keys: &MatrixKeys) -> Result<Program, Diagnostic> {
        parse(&expr.text, expr.span, keys, |range| {
            place(expr.span, &expr.text, range)
        })
    }

    /// Returns every use of a name that the expression doesn't bind itself, in the order of the text.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Returns the calls of functions that aren't built in.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Returns the names that are compared with texts and durations.
    pub fn comparisons(&self) -> &[Comparison] {
        &self.comparisons
    }

    /// Returns the text of the expression.
    pub fn text(&self) -> &str {
        &self.tree.text
    }

    /// Returns the place of the text.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Returns the name and the fields of an expression that is only a path.
    pub(super) fn fields(&self) -> Option<(&str, &[String])> {
        let (root, path) = self.fields.as_ref()?;
        Some((root, path))
    }

    /// Returns whether the expression uses `root`.
    pub fn mentions(&self, root: &str) -> bool {
        self.references.iter().any(|r| r.root == root)
    }
}

/// Parses CEL text; `locate` maps a range of it to a place.
pub(super) fn parse(
    text: &str,
    span: Span,
    keys: &MatrixKeys,
    locate: impl Fn(&Range<usize>) -> Span,
) -> Result<Program, Diagnostic> {
    let located = |flaw: Flaw| Diagnostic {
        help: flaw.help,
        ..Diagnostic::error(locate(&flaw.range), flaw.message)
    };
    let checked = scan::check(text).map_err(located)?;
    let env = environment().map_err(|e| Diagnostic::error(span, e))?;
    let names = dashed_names(text, keys);
    let plain = without_dashes(text, &names);
    let read = || env.parser().parse_with_source_info(&plain);
    let parsed = match checked.pairs.is_empty() {
        true => with_room(checked.height, read),
        false => on_own_stack(checked.height, read),
    };
    let (mut root, info) = parsed
        .map_err(|e| Diagnostic::error(span, no_room(&e)))?
        .map_err(|errors| located(super::syntax::flaw(text, &errors)))?;
    let mut tree = Tree {
        text: text.to_owned(),
        root: IdedExpr::default(),
        info,
        pairs: checked.pairs,
        names,
    };
    if !keys.is_empty() {
        Keys { tree: &tree, keys }.restore(&mut root);
    }
    let mut survey = Survey {
        tree: &tree,
        locate: &locate,
        bound: Vec::new(),
        references: Vec::new(),
        calls: Vec::new(),
        comparisons: Vec::new(),
    };
    survey.visit(&root).map_err(located)?;
    let (mut references, calls, comparisons) =
        (survey.references, survey.calls, survey.comparisons);
    references.sort_by_key(|r| r.range.start);
    references.dedup_by(|a, b| a.range == b.range);
    tree.root = root;
    prepare(&mut tree.root, false);
    Ok(Program {
        height: checked.height,
        fields: fields(&tree.root),
        tree,
        span,
        references,
        calls,
        comparisons,
    })
}

/// Returns the ranges of names after `matrix.` that contain `-`.
fn dashed_names(text: &str, keys: &MatrixKeys) -> Vec<Range<usize>> {
    let mut names = Vec::new();
    if keys.is_empty() || !text.contains('-') {
        return names;
    }
    let (mut at, mut after_dot) = (0, false);
    while let Ok(token) = scan::token_at(text, at) {
        let rest = text.get(token.end..).unwrap_or_default();
        if token.kind == Kind::Word
            && token.text(text) == "matrix"
            && !after_dot
            && rest.starts_with('.')
        {
            let start = token.end + 1 + usize::from(rest.starts_with(".?"));
            let run = text.get(start..).unwrap_or_default();
            let end = run
                .find(|c| !scan::is_word(c) && c != '-')
                .unwrap_or(run.len());
            let found = run.get(..end).and_then(|run| keys.dashed(run));
            names.extend(found.map(|len| start..start + len));
        }
        after_dot = match token.kind {
            Kind::Space | Kind::Comment => after_dot,
            _ => token.text(text) == ".",
        };
        at = token.end;
    }
    names
}

/// Returns the text in a form that CEL's parser can read, with every character at its position.
fn without_dashes(text: &str, names: &[Range<usize>]) -> String {
    let mut plain = text.to_owned();
    for name in names {
        let word = text.get(name.clone()).unwrap_or_default().replace('-', "_");
        plain.replace_range(name.clone(), &word);
    }
    plain
}

/// Replaces the keys of `matrix` in a tree by their real names.
struct Keys<'t> {
    tree: &'t Tree,
    keys: &'t MatrixKeys,
}

impl Keys<'_> {
    fn restore(&self, part: &mut IdedExpr) {
        let token = self.tree.token(part.id);
        match &mut part.expr {
            Expr::Select(select) if is_matrix(&select.operand) => {
                let written = match select.test {
                    true => self.named(&select.field).or(Some(select.field.as_str())),
                    false => self.tree.text.get(self.tree.name_after(token.end)),
                };
                if let Some(name) = written.and_then(|written| self.meant(written)) {
                    select.field = name;
                }
            }
            Expr::Select(select) => self.restore(&mut select.operand),
            Expr::Call(call) => {
                if let [operand, index] = call.args.as_mut_slice()
                    && is_matrix(operand)
                    && let Expr::Literal(LiteralValue::String(name)) = &mut index.expr
                {
                    let written = match call.func_name.as_str() {
                        operators::INDEX | operators::OPT_INDEX => Some(name.inner()),
                        operators::OPT_SELECT => {
                            self.tree.text.get(self.tree.name_after(token.end))
                        }
                        _ => None,
                    };
                    if let Some(meant) = written.and_then(|written| self.meant(written)) {
                        *name = meant.into();
                    }
                }
                let target = call.target.as_deref_mut();
                target
                    .into_iter()
                    .chain(&mut call.args)
                    .for_each(|part| self.restore(part));
            }
            Expr::List(list) => list.elements.iter_mut().for_each(|part| self.restore(part)),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let cel::common::ast::EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.restore(&mut entry.key);
                        self.restore(&mut entry.value);
                    }
                }
            }
            Expr::Comprehension(macro_) => {
                for inner in [
                    &mut macro_.iter_range,
                    &mut macro_.accu_init,
                    &mut macro_.loop_cond,
                    &mut macro_.loop_step,
                    &mut macro_.result,
                ] {
                    self.restore(inner);
                }
            }
            Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
        }
    }

    /// Returns the written form of a name whose dashes were replaced.
    fn named(&self, plain: &str) -> Option<&str> {
        let mut names = self
            .tree
            .names
            .iter()
            .filter_map(|name| self.tree.text.get(name.clone()));
        names.find(|name| name.replace('-', "_") == plain)
    }

    /// Returns the real name of the key. For an unknown key, returns the written form if it contains `-`.
    fn meant(&self, written: &str) -> Option<String> {
        match self.keys.canonical(written) {
            Some(name) => Some(name.to_owned()),
            None => written.contains('-').then(|| written.to_owned()),
        }
    }
}

fn is_matrix(part: &IdedExpr) -> bool {
    matches!(&part.expr, Expr::Ident(name) if name == "matrix")
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

/// Collects references and calls, and finds calls that are wrong for all values.
struct Survey<'t> {
    tree: &'t Tree,
    locate: &'t dyn Fn(&Range<usize>) -> Span,
    /// Variables of the macros around the visited part.
    bound: Vec<String>,
    references: Vec<Reference>,
    calls: Vec<Call>,
    comparisons: Vec<Comparison>,
}

impl Survey<'_> {
    fn visit(&mut self, part: &IdedExpr) -> Result<(), Flaw> {
        if let Some(reference) = self.reference(part) {
            self.references.extend(reference);
            return Ok(());
        }
        if let Expr::Call(call) = &part.expr
            && let [left, right] = call.args.as_slice()
            && compares(&call.func_name)
        {
            self.compared(left, right);
            self.compared(right, left);
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

    fn compared(&mut self, name: &IdedExpr, with: &IdedExpr) {
        let Expr::Ident(name) = &name.expr else {
            return;
        };
        let other = match &with.expr {
            Expr::Literal(LiteralValue::String(text)) => Other::Text(text.inner().to_owned()),
            Expr::Call(call) if call.func_name == "duration" => match call.args.as_slice() {
                [
                    IdedExpr {
                        expr: Expr::Literal(LiteralValue::String(text)),
                        ..
                    },
                ] => Other::Duration(text.inner().to_owned()),
                _ => Other::Duration(String::new()),
            },
            _ => return,
        };
        if !self.bound.contains(name) {
            self.comparisons.push(Comparison {
                name: name.clone(),
                other,
                span: (self.locate)(&self.tree.range(with)),
            });
        }
    }

    /// Checks a call against the built-in functions. Returns `true` if its target is a namespace rather than a value.
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

    /// Returns `None` if the part is not a path, and `Some(None)` if it is a path that refers to nothing outside the
    /// expression.
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

    /// Returns the root of a path of fields and literal keys, and pushes the segments in order.
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

/// Returns the end of the field in `has(a.b)`: the last word before the closing bracket.
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
fn prepare(part: &mut IdedExpr, looped: bool) {
    match &mut part.expr {
        Expr::Call(call) => {
            let target = call.target.as_deref_mut();
            target
                .into_iter()
                .chain(&mut call.args)
                .for_each(|part| prepare(part, looped));
            prepare_call(call);
        }
        Expr::Select(select) => prepare(&mut select.operand, looped),
        Expr::List(list) => {
            for element in &mut list.elements {
                prepare(element, looped);
                count_part(element, looped);
            }
        }
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let cel::common::ast::EntryExpr::MapEntry(entry) = &mut entry.expr {
                    for part in [&mut entry.key, &mut entry.value] {
                        prepare(part, looped);
                        count_part(part, looped);
                    }
                }
            }
        }
        Expr::Comprehension(macro_) => {
            prepare(&mut macro_.iter_range, looped);
            prepare(&mut macro_.accu_init, looped);
            prepare(&mut macro_.loop_step, true);
            prepare(&mut macro_.result, looped);
            wrap(&mut macro_.iter_range, EACH);
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
    }
}

fn compares(name: &str) -> bool {
    [
        operators::EQUALS,
        operators::NOT_EQUALS,
        operators::LESS,
        operators::LESS_EQUALS,
        operators::GREATER,
        operators::GREATER_EQUALS,
    ]
    .contains(&name)
}

/// Functions whose result may be as large as their arguments, or larger.
const MAKERS: [&str; 18] = [
    "bytes",
    "distinct",
    "flatten",
    "format",
    "fromJSON",
    "fromTOML",
    "join",
    "lowerAscii",
    "orValue",
    "replace",
    "reverse",
    "slice",
    "sort",
    "split",
    "string",
    "substring",
    "trim",
    "upperAscii",
];
/// Functions that read a whole text.
const READERS: [&str; 8] = [
    "charAt",
    "contains",
    "endsWith",
    "indexOf",
    "lastIndexOf",
    "matches",
    "size",
    "startsWith",
];

/// Wraps the operands of an operator or function, so that their size is counted before a value is made from them.
fn count_operands(call: &mut CallExpr) {
    let name = call.func_name.as_str();
    if name == operators::ADD {
        call.args.iter_mut().for_each(|arg| count(arg, HELD));
        return;
    }
    if compares(name) {
        // A comparison with a literal reads no more than the literal's length.
        if !call
            .args
            .iter()
            .any(|arg| matches!(arg.expr, Expr::Literal(_)))
        {
            call.args.iter_mut().for_each(|arg| count(arg, SEEN));
        }
        return;
    }
    let wrapper = match name {
        _ if !is_function(name) => return,
        name if READERS.contains(&name) => SEEN,
        name if MAKERS.contains(&name) || arities(name).is_none() => HELD,
        _ => return,
    };
    let target = call.target.as_deref_mut();
    let target = target.filter(
        |target| !matches!(&target.expr, Expr::Ident(name) if NAMESPACES.contains(&name.as_str())),
    );
    target
        .into_iter()
        .chain(&mut call.args)
        .for_each(|arg| count(arg, wrapper));
}

/// Counts a part of a list or map. In a loop even small parts are counted, because they add up.
fn count_part(part: &mut IdedExpr, looped: bool) {
    let own = matches!(&part.expr, Expr::Ident(name) if name.starts_with(['@', '#']));
    match looped && !own {
        true => wrap(part, HELD),
        false => count(part, HELD),
    }
}

/// Wraps a part, unless it is small or its own parts are already counted.
fn count(part: &mut IdedExpr, wrapper: &str) {
    let counted = match &part.expr {
        Expr::Literal(_) | Expr::List(_) | Expr::Map(_) => true,
        // A macro's own variables stay unwrapped: the evaluator recognises the loop only in that form.
        Expr::Ident(name) => name.starts_with(['@', '#']),
        Expr::Call(call) => call.func_name == operators::ADD || is_wrapper(&call.func_name),
        _ => false,
    };
    if !counted {
        wrap(part, wrapper);
    }
}

/// Redirects calls that the crate executes too slowly or without bounds to the functions that replace them.
fn prepare_call(call: &mut CallExpr) {
    count_operands(call);
    match (call.func_name.as_str(), call.args.as_mut_slice()) {
        ("matches", _) => call.func_name = MATCHES.to_owned(),
        ("join", [_]) => call.func_name = JOIN.to_owned(),
        ("replace", _) => call.func_name = REPLACE.to_owned(),
        ("split", _) => call.func_name = SPLIT.to_owned(),
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
