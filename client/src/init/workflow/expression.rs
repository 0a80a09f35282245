//! Translates GitHub's expressions to CEL, where both surely mean the same; anything else is refused with a reason.
//!
//! GitHub compares texts without regard to case, and numbers with texts by conversion; CEL does neither. So a comparison
//! is translated only if the axis has values of one type, and no value that differs from the other side by case alone.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Maximum nesting of an expression.
const MAX_DEPTH: usize = 32;

/// What expressions may refer to.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Values of each axis, and of each key of `include`.
    pub matrix: BTreeMap<String, Vec<Value>>,
    /// Variables of the job and the workflow, translated already.
    pub env: BTreeMap<String, String>,
    /// Services and the ports of their containers.
    pub ports: BTreeMap<String, BTreeSet<u16>>,
    /// Ports of the runner that lead to a service; none if the steps run in a container themselves.
    pub published: BTreeMap<u16, (String, u16)>,
}

/// A translated text, or the reason why there is none.
pub type Translated = Result<String, String>;

impl Known {
    /// Translates a text with `${{ }}` in it.
    pub fn text(&self, text: &str) -> Translated {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${{") {
            out.push_str(&self.local(rest.get(..at).unwrap_or_default()));
            let inside = rest.get(at + 3..).unwrap_or_default();
            let end = end_of(inside).ok_or("a `${{` is not closed")?;
            let expression = inside.get(..end).unwrap_or_default().trim();
            self.push_interpolated(&mut out, expression)?;
            rest = inside.get(end + 2..).unwrap_or_default();
        }
        out.push_str(&self.local(rest));
        Ok(out)
    }

    /// Replaces the fixed ports of this machine by those that Phalanx finds for each cell.
    fn local(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (port, (service, inner)) in &self.published {
            let target = self.address(service, *inner);
            for host in LOCAL {
                out = replace_number(&out, &format!("{host}:{port}"), &target);
            }
        }
        out
    }

    /// Returns the text of host and port by which steps reach a port of a service: at the container or at this machine,
    /// depending on the engine.
    fn address(&self, service: &str, port: u16) -> String {
        let first = self.ports.get(service).and_then(BTreeSet::first);
        match first == Some(&port) {
            // The service's URL has its first port.
            true => format!("${{{{ {}.url.split('/')[2] }}}}", named(service)),
            false => format!(
                "${{{{ {} }}}}:${{{{ {} }}}}",
                host_of(service),
                port_of(service, port)
            ),
        }
    }

    /// Returns service and expression, if the value of a variable is the port of a service or the name of this machine.
    /// With several services, the variable's name says which one is meant.
    pub fn published_as(&self, variable: &str, value: &str) -> Option<(&str, String)> {
        let port = value.parse().ok();
        if let Some((service, port)) = port.and_then(|port: u16| self.published.get(&port)) {
            return Some((service, port_of(service, *port)));
        }
        if !LOCAL.contains(&value) {
            return None;
        }
        let services = self.published.values().map(|(name, _)| name.as_str());
        let services: BTreeSet<&str> = services.collect();
        let name = variable.to_lowercase();
        let meant = |service: &&&str| services.len() == 1 || name.contains(&service.to_lowercase());
        let service = *services.iter().find(meant)?;
        Some((service, host_of(service)))
    }

    fn push_interpolated(&self, out: &mut String, expression: &str) -> Result<(), String> {
        let parsed = parse(expression)?;
        let service = match &parsed {
            Expr::Path(path) => self.service_port(path),
            _ => None,
        };
        let before = LOCAL.map(|host| format!("{host}:"));
        let host = before.iter().find(|host| out.ends_with(host.as_str()));
        if let (Some((service, port)), Some(host)) = (service, host) {
            out.truncate(out.len() - host.len());
            out.push_str(&self.address(service, port));
            return Ok(());
        }
        out.push_str(&self.interpolated(&parsed)?);
        Ok(())
    }

    fn interpolated(&self, parsed: &Expr) -> Translated {
        if let Expr::Path(path) = parsed
            && let [Step::Name(context), Step::Name(name)] = path.as_slice()
            && context == "env"
        {
            let value = self.env.get(name).cloned();
            return value.ok_or_else(|| format!("`env.{name}` was not taken over"));
        }
        Ok(format!("${{{{ {} }}}}", self.value(parsed)?))
    }

    /// Returns service and port of `job.services.NAME.ports[PORT]`, if both were taken over.
    fn service_port<'p>(&self, path: &'p [Step]) -> Option<(&'p str, u16)> {
        let [
            Step::Name(job),
            Step::Name(services),
            Step::Name(service),
            Step::Name(ports),
            port,
        ] = path
        else {
            return None;
        };
        if job != "job" || services != "services" || ports != "ports" {
            return None;
        }
        let port = match port {
            Step::Name(text) => text.parse().ok()?,
            Step::Number(number) => u16::try_from(*number).ok()?,
        };
        let known = self.ports.get(service)?.contains(&port);
        known.then_some((service.as_str(), port))
    }

    /// Translates a condition: the whole of an `if`, with or without `${{ }}`.
    pub fn condition(&self, text: &str) -> Translated {
        let inner = text.trim();
        let inner = inner
            .strip_prefix("${{")
            .and_then(|inner| inner.strip_suffix("}}"))
            .unwrap_or(inner);
        if inner.contains("${{") {
            return Err("it mixes text and expressions".to_owned());
        }
        self.truth(&parse(inner.trim())?)
    }

    fn value(&self, expr: &Expr) -> Translated {
        match expr {
            Expr::Literal(value) => Ok(literal(value)),
            Expr::Path(path) => self.path(path),
            // `a && b || c` is how GitHub's expressions write a choice; a `b` that counts as false would give `c`.
            Expr::Or(left, otherwise) => match &**left {
                Expr::And(condition, then) if is_true(then) => Ok(format!(
                    "{} ? {} : {}",
                    self.truth(condition)?,
                    self.value(then)?,
                    self.value(otherwise)?
                )),
                _ => self.truth(expr),
            },
            _ => self.truth(expr),
        }
    }

    fn truth(&self, expr: &Expr) -> Translated {
        match expr {
            Expr::Literal(Value::Bool(value)) => Ok(value.to_string()),
            Expr::Not(inner) => Ok(format!("!({})", self.truth(inner)?)),
            Expr::And(left, right) => Ok(format!("{} && {}", self.part(left)?, self.part(right)?)),
            Expr::Or(left, right) => Ok(format!("{} || {}", self.part(left)?, self.part(right)?)),
            Expr::Compare(op, left, right) => self.comparison(op, left, right),
            Expr::Path(path) => match self.values(path) {
                Some(values) if values.iter().all(Value::is_boolean) => {
                    Ok(format!("{} == true", self.path(path)?))
                }
                Some(_) => Err("it asks whether a text or a number counts as true".to_owned()),
                None => Err(self.path(path).err().unwrap_or_else(unsure)),
            },
            Expr::Call(name) => Err(format!("the function `{name}` has no counterpart")),
            Expr::Literal(_) => Err("it asks whether a text or a number counts as true".to_owned()),
        }
    }

    /// Returns a part of a condition, in parentheses if it has parts itself.
    fn part(&self, expr: &Expr) -> Translated {
        let text = self.truth(expr)?;
        match expr {
            Expr::And(..) | Expr::Or(..) => Ok(format!("({text})")),
            _ => Ok(text),
        }
    }

    fn comparison(&self, op: &str, left: &Expr, right: &Expr) -> Translated {
        let (Some(ours), Some(theirs)) = (self.possible(left), self.possible(right)) else {
            let refused = [left, right].map(|side| self.value(side).err());
            return Err(refused.into_iter().flatten().next().unwrap_or_else(unsure));
        };
        let kinds: BTreeSet<&str> = ours.iter().chain(&theirs).map(kind).collect();
        if kinds.len() > 1 {
            return Err("it compares values of different types".to_owned());
        }
        if !matches!(op, "==" | "!=") && !kinds.contains("number") {
            return Err(format!("`{op}` of texts depends on GitHub's order"));
        }
        let by_case = |one: &Value, other: &Value| match (one.as_str(), other.as_str()) {
            (Some(one), Some(other)) => one != other && one.to_lowercase() == other.to_lowercase(),
            _ => false,
        };
        if ours
            .iter()
            .any(|one| theirs.iter().any(|other| by_case(one, other)))
        {
            return Err("GitHub compares texts without regard to case".to_owned());
        }
        Ok(format!("{} {op} {}", self.value(left)?, self.value(right)?))
    }

    /// Returns the values that an expression may have; `None` if that isn't known.
    fn possible(&self, expr: &Expr) -> Option<Vec<Value>> {
        match expr {
            Expr::Literal(value) => Some(vec![value.clone()]),
            Expr::Path(path) => self.values(path).map(<[Value]>::to_vec),
            _ => None,
        }
    }

    fn values(&self, path: &[Step]) -> Option<&[Value]> {
        match path {
            [Step::Name(context), Step::Name(name)] if context == "matrix" => {
                let scalar = |value: &Value| !value.is_array() && !value.is_object();
                let values = self.matrix.get(name)?;
                values.iter().all(scalar).then_some(values.as_slice())
            }
            _ => None,
        }
    }

    fn path(&self, path: &[Step]) -> Translated {
        let spelled = spelled(path);
        if let Some((service, port)) = self.service_port(path) {
            return Ok(port_of(service, port));
        }
        match path {
            [Step::Name(context), Step::Name(name), ..] if context == "matrix" => {
                match self.matrix.contains_key(name) {
                    true => Ok(spelled),
                    false => Err(format!("`matrix.{name}` was not taken over")),
                }
            }
            [Step::Name(context), Step::Name(name)] if context == "secrets" => Err(format!(
                "`secrets.{name}` is not known here: declare it (`secrets: [{name}]`) and pass it by --secret-env {name}"
            )),
            [Step::Name(context), ..] if context == "env" => {
                Err(format!("`{spelled}` inside an expression isn't translated"))
            }
            _ => Err(format!("`{spelled}` is known to GitHub only")),
        }
    }
}

fn unsure() -> String {
    "it isn't clear what it means here".to_owned()
}

/// Names of this machine, where GitHub publishes the ports of services.
pub const LOCAL: [&str; 2] = ["localhost", "127.0.0.1"];

/// Returns the expression for the port by which steps reach a port of a service.
pub fn port_of(service: &str, port: u16) -> String {
    format!("{}.port[{port}]", named(service))
}

/// Returns the expression for the host by which steps reach a service.
pub fn host_of(service: &str) -> String {
    format!("{}.url.split('/')[2].split(':')[0]", named(service))
}

fn named(service: &str) -> String {
    match service.contains('-') {
        true => format!("services['{service}']"),
        false => format!("services.{service}"),
    }
}

/// Replaces a text that ends with a number, where no further digit follows.
fn replace_number(text: &str, wanted: &str, target: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(wanted) {
        let after = rest.get(at + wanted.len()..).unwrap_or_default();
        out.push_str(rest.get(..at).unwrap_or_default());
        match after.starts_with(|c: char| c.is_ascii_digit()) {
            true => out.push_str(wanted),
            false => out.push_str(target),
        }
        rest = after;
    }
    out + rest
}

/// Whether GitHub takes a literal for true.
fn is_true(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(Value::String(text)) => !text.is_empty(),
        Expr::Literal(Value::Number(number)) => number.as_f64() != Some(0.0),
        Expr::Literal(Value::Bool(value)) => *value,
        _ => false,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        _ => "other",
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let escaped = text.replace('\\', "\\\\").replace('\'', "\\'");
            let escaped = escaped.replace('\n', "\\n").replace('\r', "\\r");
            format!("'{escaped}'")
        }
        other => other.to_string(),
    }
}

fn spelled(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Name(name) if out.is_empty() => out.push_str(name),
            Step::Name(name) if is_name(name) => {
                out.push('.');
                out.push_str(name);
            }
            Step::Name(name) => {
                out.push_str(&format!("[{}]", literal(&Value::from(name.as_str()))))
            }
            Step::Number(number) => out.push_str(&format!("[{number}]")),
        }
    }
    out
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// Returns where an expression's `}}` is, past texts in quotes.
fn end_of(text: &str) -> Option<usize> {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            '}' if !quoted && text.get(at..).is_some_and(|rest| rest.starts_with("}}")) => {
                return Some(at);
            }
            _ => {}
        }
    }
    None
}

#[derive(Clone, Debug, PartialEq)]
enum Expr {
    Literal(Value),
    Path(Vec<Step>),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Compare(&'static str, Box<Expr>, Box<Expr>),
    /// A call, by the function's name; none has a counterpart.
    Call(String),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Name(String),
    Number(u64),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Number(serde_json::Number),
    Sign(&'static str),
}

const SIGNS: [&str; 16] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "(", ")", "[", "]", ".", ",", "*",
];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let used = if first == '\'' {
            let (token, used) = quoted(rest).ok_or("a text in it is not closed")?;
            found.push(Token::Text(token));
            used
        } else if first.is_ascii_digit()
            || first == '-'
                && rest
                    .get(1..)
                    .is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
        {
            let number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
            let word = word(rest, number);
            let value = word.parse().map_err(|_| format!("`{word}` is no number"))?;
            found.push(Token::Number(value));
            word.len()
        } else if first.is_ascii_alphabetic() || first == '_' {
            let word = word(rest, |c| {
                c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
            });
            found.push(Token::Name(word.to_owned()));
            word.len()
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
            let sign = sign.ok_or_else(|| format!("`{first}` is not known in it"))?;
            found.push(Token::Sign(sign));
            sign.len()
        };
        rest = rest.get(used..).unwrap_or_default().trim_start();
    }
    Ok(found)
}

fn word(text: &str, part: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c| !part(c)).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// Returns a text in single quotes, and how many bytes it takes. Two quotes are one.
fn quoted(text: &str) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match (c, chars.peek()) {
            ('\'', Some((_, '\''))) => {
                chars.next();
                out.push('\'');
            }
            ('\'', _) => return Some((out, at + 1)),
            (c, _) => out.push(c),
        }
    }
    None
}

fn parse(text: &str) -> Result<Expr, String> {
    let tokens = tokens(text)?;
    let mut parser = Parser {
        tokens: &tokens,
        depth: 0,
    };
    let parsed = parser.or()?;
    match parser.tokens {
        [] => Ok(parsed),
        _ => Err(unsure()),
    }
}

struct Parser<'t> {
    tokens: &'t [Token],
    depth: usize,
}

impl Parser<'_> {
    fn next_is(&mut self, sign: &str) -> bool {
        match self.tokens.split_first() {
            Some((Token::Sign(found), rest)) if *found == sign => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    fn or(&mut self) -> Result<Expr, String> {
        let mut left = self.and()?;
        while self.next_is("||") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, String> {
        let mut left = self.comparison()?;
        while self.next_is("&&") {
            left = Expr::And(Box::new(left), Box::new(self.comparison()?));
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Expr, String> {
        let left = self.unary()?;
        for op in ["==", "!=", "<=", ">=", "<", ">"] {
            if self.next_is(op) {
                return Ok(Expr::Compare(op, Box::new(left), Box::new(self.unary()?)));
            }
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("it is nested too deeply".to_owned());
        }
        let result = if self.next_is("!") {
            Ok(Expr::Not(Box::new(self.unary()?)))
        } else if self.next_is("(") {
            let inner = self.or()?;
            self.next_is(")").then_some(inner).ok_or_else(unsure)
        } else {
            self.primary()
        };
        self.depth -= 1;
        result
    }

    fn primary(&mut self) -> Result<Expr, String> {
        let Some((token, rest)) = self.tokens.split_first() else {
            return Err(unsure());
        };
        self.tokens = rest;
        match token {
            Token::Text(text) => Ok(Expr::Literal(Value::from(text.as_str()))),
            Token::Number(number) => Ok(Expr::Literal(Value::Number(number.clone()))),
            Token::Sign(_) => Err(unsure()),
            Token::Name(name) => match name.as_str() {
                "true" => Ok(Expr::Literal(Value::Bool(true))),
                "false" => Ok(Expr::Literal(Value::Bool(false))),
                "null" => Ok(Expr::Literal(Value::Null)),
                _ if self.next_is("(") => self.call(name),
                _ => self.path(name),
            },
        }
    }

    /// Reads a call's arguments only to find its end.
    fn call(&mut self, name: &str) -> Result<Expr, String> {
        if !self.next_is(")") {
            loop {
                self.or()?;
                if self.next_is(")") {
                    break;
                }
                if !self.next_is(",") {
                    return Err(unsure());
                }
            }
        }
        Ok(Expr::Call(name.to_owned()))
    }

    fn path(&mut self, first: &str) -> Result<Expr, String> {
        let mut path = vec![Step::Name(first.to_lowercase())];
        loop {
            if self.next_is(".") {
                match self.tokens.split_first() {
                    Some((Token::Name(name), rest)) => {
                        path.push(Step::Name(name.clone()));
                        self.tokens = rest;
                    }
                    _ => return Err("`.*` has no counterpart".to_owned()),
                }
            } else if self.next_is("[") {
                match self.tokens.split_first() {
                    Some((Token::Text(text), rest)) => {
                        path.push(Step::Name(text.clone()));
                        self.tokens = rest;
                    }
                    Some((Token::Number(number), rest)) => {
                        path.push(Step::Number(number.as_u64().ok_or_else(unsure)?));
                        self.tokens = rest;
                    }
                    _ => return Err("a computed index has no counterpart".to_owned()),
                }
                if !self.next_is("]") {
                    return Err(unsure());
                }
            } else {
                return Ok(Expr::Path(path));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn known() -> Known {
        let matrix = [
            ("db", json!(["postgres", "MySQL"])),
            ("python-version", json!(["3.11", "3.12"])),
            ("n", json!([1, 2])),
            ("debug", json!([true, false])),
            ("mixed", json!([1, "b"])),
        ];
        let matrix =
            matrix.map(|(name, values)| (name.to_owned(), values.as_array().unwrap().clone()));
        Known {
            matrix: matrix.into_iter().collect(),
            env: BTreeMap::from([("TAG".to_owned(), "v${{ matrix.n }}".to_owned())]),
            ports: BTreeMap::from([("postgres".to_owned(), BTreeSet::from([5432, 6000]))]),
            published: BTreeMap::from([(5433, ("postgres".to_owned(), 5432))]),
        }
    }

    #[test]
    fn what_means_the_same_is_translated() {
        let known = known();
        for (text, expected) in [
            ("plain $X {{ }}", "plain $X {{ }}"),
            (
                "localhost:5433/x localhost:54331",
                "${{ services.postgres.url.split('/')[2] }}/x localhost:54331",
            ),
            (
                "redis://localhost:${{ job.services.postgres.ports[6000] }}",
                "redis://${{ services.postgres.url.split('/')[2].split(':')[0] }}:${{ services.postgres.port[6000] }}",
            ),
            ("a-${{matrix.db}}-b", "a-${{ matrix.db }}-b"),
            (
                "${{ matrix['python-version'] }}",
                "${{ matrix.python-version }}",
            ),
            ("x:${{ env.TAG }}", "x:v${{ matrix.n }}"),
            ("${{ 'it''s }}' }}", "${{ 'it\\'s }}' }}"),
            (
                "${{ job.services.postgres.ports['5432'] }}",
                "${{ services.postgres.port[5432] }}",
            ),
            (
                "${{ matrix.db == 'postgres' && 'a' || 'b' }}",
                "${{ matrix.db == 'postgres' ? 'a' : 'b' }}",
            ),
        ] {
            assert_eq!(known.text(text).as_deref(), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("matrix.db != 'postgres'", "matrix.db != 'postgres'"),
            ("${{ matrix.n >= 2 }}", "matrix.n >= 2"),
            ("!matrix.debug", "!(matrix.debug == true)"),
            (
                "matrix.debug && (matrix.n == 1 || matrix.n == 2)",
                "matrix.debug == true && (matrix.n == 1 || matrix.n == 2)",
            ),
        ] {
            assert_eq!(known.condition(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_may_mean_something_else_is_refused_with_a_reason() {
        let known = known();
        for (text, reason) in [
            ("matrix.db == 'mysql'", "without regard to case"),
            ("matrix.n == '1'", "different types"),
            ("matrix.mixed == 1", "different types"),
            ("matrix.db < 'q'", "order"),
            ("matrix.db", "counts as true"),
            ("matrix.os == 'linux'", "`matrix.os` was not taken over"),
            (
                "github.ref == 'refs/heads/main'",
                "`github.ref` is known to GitHub only",
            ),
            ("contains(matrix.db, 'x')", "`contains` has no counterpart"),
            ("failure()", "`failure` has no counterpart"),
            ("steps.a.outputs.b == '1'", "`steps.a.outputs.b`"),
            ("(matrix.n == 1", "isn't clear"),
            ("matrix.*.x", "counterpart"),
            ("a 'b", "not closed"),
        ] {
            let found = known.condition(text).unwrap_err();
            assert!(found.contains(reason), "{text}: {found}");
        }
        assert!(
            known
                .text("${{ secrets.KEY }}")
                .unwrap_err()
                .contains("--secret-env KEY")
        );
        assert!(known.text("${{ 'a").unwrap_err().contains("not closed"));
        let deep = format!("{}1{}", "(".repeat(500), ")".repeat(500));
        assert!(known.condition(&deep).unwrap_err().contains("too deeply"));
    }
}
