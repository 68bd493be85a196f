//! Values against JSON Schemas: every problem at once, by JSON pointer, without quoting what was sent.
//!
//! What was sent may hold a secret in the wrong place, so no message repeats a value.

use crosspoint_core::{Code, Error, Problem, Result};
use jsonschema::{
    ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind as Kind},
};
use serde_json::Value;
use std::fmt;

/// A compiled schema.
pub(crate) struct Checker(Validator);

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checker")
    }
}

impl Checker {
    /// Compiles a schema. Nothing is fetched: references outside of the document are an error.
    pub(crate) fn new(schema: &Value) -> Result<Self> {
        jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .should_validate_formats(true)
            .offline()
            .build(schema)
            .map(Self)
            .map_err(|e| {
                Error::new(
                    Code::SetupInvalid,
                    format!("a JSON Schema is not valid: {}", e.masked()),
                )
            })
    }

    /// Every problem of a value, with pointers below `prefix`.
    pub(crate) fn problems(&self, value: &Value, prefix: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        for error in self.0.iter_errors(value) {
            describe(&error, prefix, &mut problems);
        }
        problems.sort_by(|a, b| a.pointer.cmp(&b.pointer));
        problems.dedup();
        problems
    }
}

/// `Ok` if there are none.
pub(crate) fn problems_error(code: Code, message: &str, problems: Vec<Problem>) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::new(code, message).with_problems(problems))
}

/// Escapes a name for use in a JSON pointer.
pub(crate) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn describe(error: &ValidationError<'_>, prefix: &str, problems: &mut Vec<Problem>) {
    let at = format!("{prefix}{}", error.instance_path());
    match error.kind() {
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            problems.push(Problem::new(format!("{at}/{}", escape(name)), "is required"));
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            for name in unexpected {
                problems.push(Problem::new(format!("{at}/{}", escape(name)), "is not known here"));
            }
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => match meant(context, error) {
            Some(branch) => {
                for error in branch {
                    describe(error, prefix, problems);
                }
            }
            None => problems.push(Problem::new(at, values(context))),
        },
        kind => problems.push(Problem::new(at, message(kind, error))),
    }
}

/// The values that are possible, where every alternative is a list of values or a single one.
fn values(context: &[Vec<ValidationError<'static>>]) -> String {
    let mut shown = Vec::new();
    for error in context.iter().flatten() {
        match error.kind() {
            Kind::Constant { expected_value } => shown.push(expected_value.to_string()),
            Kind::Enum { options } => shown.extend(options.as_array().into_iter().flatten().map(ToString::to_string)),
            Kind::Type {
                kind: TypeKind::Single(json),
            } if json.to_string() == "null" => {}
            _ => return "fits none of the forms that are possible here".to_owned(),
        }
    }
    match shown.len() {
        1..=20 => format!("must be one of {}", shown.join(", ")),
        _ => "fits none of the forms that are possible here".to_owned(),
    }
}

/// The alternative that the sender had in mind: the only one whose type and tag fit.
fn meant<'c>(
    context: &'c [Vec<ValidationError<'static>>],
    whole: &ValidationError<'_>,
) -> Option<&'c [ValidationError<'static>]> {
    let here = whole.instance_path().as_str();
    let misses = |error: &ValidationError<'_>| {
        let path = error.instance_path().as_str();
        match error.kind() {
            Kind::Type { .. } | Kind::Enum { .. } => path == here,
            Kind::Constant { .. } => path
                .strip_prefix(here)
                .is_some_and(|rest| rest.matches('/').count() <= 1),
            _ => false,
        }
    };
    let mut fitting = context.iter().filter(|branch| !branch.iter().any(misses));
    let first = fitting.next()?;
    fitting.next().is_none().then_some(first.as_slice())
}

fn message(kind: &Kind, error: &ValidationError<'_>) -> String {
    match kind {
        Kind::Type {
            kind: TypeKind::Single(json),
        } => format!("must be {}", article(&json.to_string())),
        Kind::Type {
            kind: TypeKind::Multiple(types),
        } => {
            let names: Vec<String> = types
                .iter()
                .map(|json| json.to_string())
                .filter(|name| name != "null")
                .map(|name| article(&name))
                .collect();
            format!("must be {}", names.join(" or "))
        }
        Kind::Enum { options } => match options.as_array() {
            Some(options) if options.len() <= 12 => {
                let shown: Vec<String> = options
                    .iter()
                    .filter(|o| !o.is_null())
                    .map(ToString::to_string)
                    .collect();
                format!("must be one of {}", shown.join(", "))
            }
            _ => "is not one of the values that are possible".to_owned(),
        },
        Kind::Constant { expected_value } => format!("must be {expected_value}"),
        Kind::MinLength { limit: 1 } => "must not be empty".to_owned(),
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinItems { limit } => format!("must have at least {limit} entries"),
        Kind::MaxItems { limit } => format!("must have at most {limit} entries"),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::UniqueItems => "must not have an entry twice".to_owned(),
        Kind::Pattern { pattern } => format!("must match the pattern {pattern}"),
        Kind::Format { format } => format!("must be a valid {format}"),
        _ => error.masked().to_string(),
    }
}

fn article(name: &str) -> String {
    match name {
        "array" | "integer" | "object" => format!("an {name}"),
        "boolean" => "true or false".to_owned(),
        _ => format!("a {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(schema: &Value, value: &Value) -> Vec<(String, String)> {
        let checker = Checker::new(schema).unwrap();
        let problems = checker.problems(value, "/config");
        problems.into_iter().map(|p| (p.pointer, p.message)).collect()
    }

    #[test]
    fn every_problem_is_told_where_its_field_is() {
        let schema = json!({
            "type": "object",
            "properties": { "a/b": { "type": "string" }, "n": { "type": "integer", "minimum": 3 } },
            "required": ["a/b"],
            "additionalProperties": false
        });
        assert_eq!(
            problems(&schema, &json!({ "n": 1, "extra": true })),
            [
                ("/config/a~1b".into(), "is required".into()),
                ("/config/extra".into(), "is not known here".into()),
                ("/config/n".into(), "must be at least 3".into()),
            ]
        );
    }

    #[test]
    fn no_message_repeats_what_was_sent() {
        let schema = json!({
            "properties": {
                "a": { "type": "integer" }, "b": { "enum": ["x"] }, "c": { "pattern": "^x$" }, "d": { "not": {} },
                "e": { "format": "email" }, "f": { "anyOf": [{ "type": "integer" }, { "type": "boolean" }] },
                "g": { "const": 1 }, "h": { "maxLength": 2 }
            }
        });
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let value: Value = names.iter().map(|n| ((*n).to_owned(), json!("canary"))).collect();
        let found = problems(&schema, &value);
        assert_eq!(found.len(), names.len(), "{found:?}");
        assert!(!format!("{found:?}").contains("canary"), "{found:?}");
    }

    #[test]
    fn of_alternatives_the_one_that_was_meant_is_explained() {
        let schema = json!({ "properties": { "mode": { "oneOf": [
            { "type": "object", "properties": { "kind": { "const": "all" } }, "required": ["kind"] },
            {
                "type": "object",
                "properties": { "kind": { "const": "some" }, "limit": { "type": "integer" } },
                "required": ["kind", "limit"]
            }
        ] }, "maybe": { "anyOf": [{ "type": "string", "minLength": 2 }, { "type": "null" }] } } });
        assert_eq!(
            problems(&schema, &json!({ "mode": { "kind": "some" }, "maybe": "x" })),
            [
                ("/config/maybe".into(), "must have at least 2 characters".into()),
                ("/config/mode/limit".into(), "is required".into()),
            ]
        );
    }

    #[test]
    fn of_alternatives_that_are_values_all_are_told() {
        let schema = json!({ "properties": { "mode": { "oneOf": [
            { "enum": ["a", "b"] }, { "const": "c", "description": "with a word about it" }, { "type": "null" }
        ] } } });
        let found = problems(&schema, &json!({ "mode": "d" }));
        assert_eq!(
            found,
            [("/config/mode".into(), "must be one of \"a\", \"b\", \"c\"".into())]
        );
    }

    #[test]
    fn a_schema_that_points_elsewhere_is_refused_without_a_look() {
        assert!(Checker::new(&json!({ "$ref": "https://example.com/schema.json" })).is_err());
        assert!(Checker::new(&json!({ "$ref": "file:///etc/passwd" })).is_err());
    }
}
