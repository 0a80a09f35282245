//! Names that people write by habit from other languages, with their equivalents here.

/// Returns advice for a function of another language.
pub fn function(name: &str) -> Option<&'static str> {
    Some(match name {
        "toUpper" | "toUpperCase" | "upper" | "uppercase" | "to_upper" => "write x.upperAscii()",
        "toLower" | "toLowerCase" | "lower" | "lowercase" | "to_lower" => "write x.lowerAscii()",
        "length" | "len" | "count" => "write x.size()",
        "isEmpty" | "empty" => "write x.size() == 0",
        "includes" | "has_key" | "hasKey" => {
            "write x.contains('text') for texts, 'x' in y for lists and keys of maps"
        }
        "strip" => "write x.trim()",
        "startswith" | "starts_with" | "hasPrefix" => "write x.startsWith('text')",
        "endswith" | "ends_with" | "hasSuffix" => "write x.endsWith('text')",
        "match" | "test" | "regex" | "regexMatch" | "search" => "write x.matches('pattern')",
        "parseInt" | "toInt" | "Number" | "atoi" => "write int(x)",
        "parseFloat" | "float" | "toNumber" => "write double(x)",
        "str" | "toString" | "String" => "write string(x)",
        "any" | "some" => "write x.exists(y, y > 0)",
        "every" | "forEach" => "write x.all(y, y > 0)",
        "find" | "where" | "select" => "write x.filter(y, y > 0).first().value()",
        "sum" | "reduce" | "fold" => "there are no sums; check each element: x.all(y, y > 0)",
        "keys" => "a map is gone through by its keys: m.map(k, k)",
        "values" => "a map is gone through by its keys: m.map(k, m[k])",
        "toJSON" | "toJson" | "stringify" => {
            "a list or map becomes JSON where it stands in a text: \"${{ x }}\""
        }
        "fromJson" | "parseJSON" | "json" => {
            "write fromJSON(text); the JSON of an answer is `json`"
        }
        "success" | "failure" | "always" | "cancelled" => {
            "a step with `always: true` runs after failures; `steps.ID.outcome` is how a step ended"
        }
        "hashFiles" => "`workspace.digest` is the digest of the workspace's files",
        "env" | "getenv" => {
            "the machine's environment is not read: pass an input (`inputs.X`) or a secret (`secrets.X`)"
        }
        "now" | "time" => {
            "there is no clock in expressions; `elapsed` is how long a step took, in seconds"
        }
        "coalesce" | "default" | "ifelse" | "iif" => "write x.?y.orValue(z), or a ? b : c",
        "substr" => "write x.substring(start, end)",
        _ => return None,
    })
}

/// Returns advice for a name of another language.
pub fn name(name: &str) -> Option<&'static str> {
    Some(match name {
        "env" | "environ" | "process" | "ENV" => {
            "the machine's environment is not read: pass an input (`inputs.X`) or a secret (`secrets.X`)"
        }
        "github" | "runner" | "job" | "jobs" | "gitlab" | "CI" => {
            "nothing of the machine is read: what a spec is to know is an input (`inputs.X`)"
        }
        "needs" | "outputs" => "what a step captures is `steps.ID.NAME`",
        "strategy" => "the values of a cell are `matrix.AXIS`",
        "input" | "params_" => "inputs are `inputs.NAME`",
        "var" | "variables" | "variable" => "variables are `vars.NAME`",
        "secret" => "secrets are `secrets.NAME`",
        "service" => "services are `services.NAME`",
        "response" | "res" | "resp" | "result" | "answer" => {
            "results are read by their bare names: status, headers, body, json, cookies, elapsed"
        }
        "code" | "exitcode" | "exitCode" | "exit_status" | "returncode" | "rc" => {
            "write `exit_code`"
        }
        "status_code" | "statusCode" | "http_status" => "write `status`",
        "output" | "out" => "write `stdout` or `stderr`",
        "text" | "content" => "write `body`, or `json` for a field of it",
        "duration" | "time" | "latency" | "response_time" => {
            "write `elapsed`: how long it took, in seconds"
        }
        "item" | "this" | "self" | "it" => {
            "`foreach: { item: [a, b] }` names a variable; a macro names its own: x.all(y, y > 0)"
        }
        "True" | "TRUE" => "write `true`",
        "False" | "FALSE" => "write `false`",
        "None" | "nil" | "undefined" | "NULL" | "Null" => "write `null`",
        _ => return None,
    })
}
