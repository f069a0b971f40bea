//! Holds what overwatch prints against the schemas in `docs/schema`: JSON Schema 2020-12, as much of it as they use.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value};

/// A schema.
#[derive(Clone, Debug)]
pub struct Schema(Value);

// A guest has no sources, so the schemas come with the test.
const SCHEMAS: [(&str, &str); 5] = [
    ("life", include_str!("../../../docs/schema/life.schema.json")),
    ("listeners", include_str!("../../../docs/schema/listeners.schema.json")),
    ("open", include_str!("../../../docs/schema/open.schema.json")),
    ("states", include_str!("../../../docs/schema/states.schema.json")),
    ("top", include_str!("../../../docs/schema/top.schema.json")),
];

impl Schema {
    /// The one of that verb.
    pub fn of(verb: &str) -> Result<Self> {
        let found = SCHEMAS.iter().find(|(name, _)| *name == verb);
        let (_, text) = found.with_context(|| format!("no schema of {verb}"))?;
        Ok(Self(serde_json::from_str(text)?))
    }

    /// An error unless `value` is valid. A keyword that is not known here is an error too.
    pub fn validate(&self, value: &Value) -> Result<()> {
        valid(&self.0, value)
    }
}

fn valid(schema: &Value, value: &Value) -> Result<()> {
    let schema = schema.as_object().context("a schema is an object")?;
    for (keyword, says) in schema {
        let holds = match keyword.as_str() {
            "$schema" => says == "https://json-schema.org/draft/2020-12/schema",
            "title" | "description" => says.is_string(),
            "type" => is_of_type(says, value)?,
            "enum" => says.as_array().context("enum is a list")?.contains(value),
            "minimum" => value.as_f64().is_none_or(|number| says.as_f64().is_some_and(|least| number >= least)),
            "format" => has_format(says, value)?,
            "required" => has_all(says, value)?,
            "properties" => {
                properties(says, value)?;
                true
            }
            "additionalProperties" => has_no_more(schema, says, value)?,
            "items" => {
                value.as_array().into_iter().flatten().try_for_each(|item| valid(says, item))?;
                true
            }
            "oneOf" => {
                let choices = says.as_array().context("oneOf is a list")?;
                let failed: Vec<_> = choices.iter().filter_map(|choice| valid(choice, value).err()).collect();
                ensure!(choices.len() - failed.len() == 1, "not one of {}: {failed:#?}: {value}", choices.len());
                true
            }
            _ => bail!("the keyword {keyword} is not known here"),
        };
        ensure!(holds, "{keyword} {says} does not hold for {value}");
    }
    Ok(())
}

fn is_of_type(names: &Value, value: &Value) -> Result<bool> {
    let names = match names {
        Value::Array(names) => names.as_slice(),
        name => std::slice::from_ref(name),
    };
    for name in names {
        let is = match name.as_str().context("a type is a name")? {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => bail!("the type {other} is not known here"),
        };
        if is {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_format(name: &Value, value: &Value) -> Result<bool> {
    ensure!(name == "date-time", "the format {name} is not known here");
    Ok(value.as_str().is_none_or(|text| humantime::parse_rfc3339(text).is_ok()))
}

fn has_all(names: &Value, value: &Value) -> Result<bool> {
    let names = names.as_array().context("required is a list")?;
    let has =
        |object: &Map<String, Value>| names.iter().filter_map(Value::as_str).all(|name| object.contains_key(name));
    Ok(value.as_object().is_none_or(has))
}

fn properties(schemas: &Value, value: &Value) -> Result<()> {
    for (name, schema) in schemas.as_object().context("properties are an object")? {
        if let Some(property) = value.get(name) {
            valid(schema, property).with_context(|| name.clone())?;
        }
    }
    Ok(())
}

fn has_no_more(schema: &Map<String, Value>, says: &Value, value: &Value) -> Result<bool> {
    ensure!(says == false, "additionalProperties {says} is not known here");
    let known = schema.get("properties").and_then(Value::as_object).context("properties beside it")?;
    Ok(value.as_object().is_none_or(|object| object.keys().all(|name| known.contains_key(name))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_schema_is_understood() {
        for (verb, _) in SCHEMAS {
            let schema = Schema::of(verb).unwrap();
            let error = format!("{:#}", schema.validate(&json!({})).unwrap_err());
            assert!(!error.contains("not known here"), "{verb}: {error}");
        }
    }

    #[test]
    fn each_keyword_holds_or_does_not() {
        let object = json!({"type": "object", "properties": {"a": {"minimum": 1}}, "required": ["a"],
            "additionalProperties": false});
        let cases = [
            (json!({"type": ["integer", "null"]}), json!(3), true),
            (json!({"type": ["integer", "null"]}), json!(null), true),
            (json!({"type": "integer"}), json!(3.5), false),
            (json!({"type": "number"}), json!("3"), false),
            (json!({"type": "boolean"}), json!(true), true),
            (json!({"enum": ["server", null]}), json!(null), true),
            (json!({"enum": ["server", null]}), json!("client"), false),
            (json!({"minimum": 0}), json!(-1), false),
            (json!({"minimum": 0}), json!(null), true),
            (json!({"format": "date-time"}), json!("2026-10-02T10:00:00.5Z"), true),
            (json!({"format": "date-time"}), json!("10:00"), false),
            (json!({"items": {"type": "string"}}), json!(["a", "b"]), true),
            (json!({"items": {"type": "string"}}), json!(["a", 1]), false),
            (object.clone(), json!({"a": 1}), true),
            (object.clone(), json!({"a": 0}), false),
            (object.clone(), json!({}), false),
            (object, json!({"a": 1, "b": 1}), false),
            (json!({"oneOf": [{"type": "string"}, {"type": "null"}]}), json!(null), true),
            (json!({"oneOf": [{"type": "string"}, {"type": "null"}]}), json!(1), false),
            (json!({"oneOf": [{"type": "number"}, {"type": "integer"}]}), json!(1), false),
            (json!({"maximum": 3}), json!(1), false),
        ];
        for (schema, value, holds) in cases {
            assert_eq!(Schema(schema.clone()).validate(&value).is_ok(), holds, "{schema} for {value}");
        }
    }
}
