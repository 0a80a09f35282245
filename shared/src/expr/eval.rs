//! Evaluates a parsed expression in a scope.

use super::convert::to_json;
use super::functions::environment;
use super::meter::{self, Meter};
use super::place::{EvalError, place};
use super::program::no_room;
use super::scope::{Layer, Scope};
use super::stack::with_room;
use super::{Program, blame};
use cel::common::value::Val;
use cel::extractors::Arguments;
use cel::{Context, ExecutionError, Value as Cel};
use serde_json::Value;

impl Program {
    /// Returns the value of the expression, or an error with the failing part and the reason.
    pub fn eval(&self, scope: &Scope) -> Result<Value, EvalError> {
        match read_fields(self, scope) {
            Some(value) => Ok(value),
            None => self.run(scope, to_json),
        }
    }

    /// Returns the value of an expression that must be true or false.
    pub fn eval_bool(&self, scope: &Scope) -> Result<bool, EvalError> {
        match self.eval(scope)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(EvalError::new(
                self.span,
                format!(
                    "`{}` is {}, not true or false",
                    self.one_line(),
                    super::text::describe(&other, &scope.masks())
                ),
            )
            .with_help("compare it: x == …, x != null, x.size() > 0")),
        }
    }

    /// Returns the text on one line, for messages.
    pub(super) fn one_line(&self) -> String {
        self.tree
            .text
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn run<T: Send>(
        &self,
        scope: &Scope,
        convert: impl FnOnce(&(dyn Val + '_)) -> Result<T, String> + Send,
    ) -> Result<T, EvalError> {
        let meter = Meter::start().map_err(|message| EvalError::new(self.span, message))?;
        with_room(self.height, || self.run_here(scope, &meter, convert))
            .unwrap_or_else(|e| Err(EvalError::new(self.span, no_room(&e))))
    }

    fn run_here<T>(
        &self,
        scope: &Scope,
        meter: &Meter,
        convert: impl FnOnce(&(dyn Val + '_)) -> Result<T, String>,
    ) -> Result<T, EvalError> {
        let failed = |message| EvalError::new(self.span, message);
        let context = self.context(scope).map_err(|e| failed(e.to_owned()))?;
        match Cel::resolve_val(&self.tree.root, &context) {
            Ok(value) => convert(value.as_ref()).map_err(failed),
            Err(error) => {
                meter.restart();
                Err(self.located(blame::find(&self.tree, scope, &context, error)))
            }
        }
    }

    pub(super) fn located(&self, blame: blame::Blame) -> EvalError {
        EvalError {
            message: blame.message,
            span: place(self.span, &self.tree.text, &blame.range),
            help: blame.help,
            incomplete: super::meter::read_incomplete(),
        }
    }

    /// Returns a context with the names of a scope and those of its functions that the expression calls.
    pub(super) fn context<'s>(&self, scope: &'s Scope) -> Result<Context<'s, 's>, &'static str> {
        let mut context = Context::with_env(environment()?.clone());
        context.set_variable_resolver(scope);
        for call in self.calls() {
            // Fails if the name is already a built-in's overload. No definition may replace a built-in.
            let _ = match call.name.as_str() {
                "file" => context.add_function("file", read_file(scope.clone())),
                name => match scope.functions().get(name) {
                    Some(_) => {
                        context.add_function(name, call_defined(scope.clone(), name.to_owned()))
                    }
                    None => Ok(()),
                },
            };
        }
        Ok(context)
    }
}

fn read_file(scope: Scope) -> impl Fn(Arguments) -> Result<Cel, ExecutionError> + Send + Sync {
    move |Arguments(args): Arguments| {
        let failed = |message: String| ExecutionError::function_error("file", message);
        let Some(read) = scope.functions().file() else {
            return Err(failed(
                "files of the workspace are read while planning only".to_owned(),
            ));
        };
        match args.as_slice() {
            [Cel::String(path)] => {
                let text = read(path).map_err(failed)?;
                meter::hold(text.len() as u64)?;
                Ok(Cel::from(text))
            }
            _ => Err(failed("one path is expected, as text".to_owned())),
        }
    }
}

fn call_defined(
    scope: Scope,
    name: String,
) -> impl Fn(Arguments) -> Result<Cel, ExecutionError> + Send + Sync {
    move |Arguments(args): Arguments| {
        let failed = |message: String| ExecutionError::function_error(&name, message);
        let Some(function) = scope.functions().get(&name).cloned() else {
            return Err(failed("not defined".to_owned()));
        };
        if function.params.len() != args.len() {
            return Err(failed(format!(
                "takes {} arguments ({}), not {}",
                function.params.len(),
                function.params.join(", "),
                args.len()
            )));
        }
        // A call gets a stack of its own and its body is walked: functions that call functions multiply this cost.
        meter::spend(100 + function.body.text().len() as u64 / 8)?;
        let mut layer = Layer::new();
        for (param, arg) in function.params.iter().zip(args.iter()) {
            layer = layer.converted(param, Box::<dyn Val>::try_from(arg.clone())?);
        }
        let inner = scope.with(layer);
        function
            .body
            .run(&inner, |value| {
                Cel::try_from(value).map_err(|e| e.to_string())
            })
            .map_err(|e| failed(e.message))
    }
}

/// Reads the value of an expression that is only a path of fields, without the evaluator.
fn read_fields(program: &Program, scope: &Scope) -> Option<Value> {
    let (root, path) = program.fields()?;
    let mut value = scope.json(root)?;
    for field in path {
        value = value.as_object()?.get(field)?;
    }
    Some(value.clone())
}
