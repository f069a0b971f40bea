//! JSON Schema of the outputs, made from the tables of their keys.

use serde_json::{Map, Value as Json, json};

use super::columns::{Key, Kind, keys, life, open, states, top};

#[cfg(test)]
mod tests;

/// The names of the files in docs/schema, with what belongs into each.
pub fn files() -> Vec<(&'static str, Json)> {
    let either = |line: &[Key], lost: &[Key]| json!({ "oneOf": [object(line), object(lost)] });
    let documents = [
        ("top", object(top::INTERVAL)),
        ("states", either(&keys(states::TRANSITION), &keys(states::LOST))),
        ("life", either(&keys(life::LIFE), &keys(life::LOST))),
        ("open", object(open::OPEN)),
    ];
    documents.map(|(verb, body)| (verb, document(verb, body))).to_vec()
}

fn document(verb: &str, body: Json) -> Json {
    let mut document = Map::new();
    document.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    document.insert("title".to_owned(), json!(format!("A line of `overwatch {verb} -o json`")));
    if let Json::Object(body) = body {
        document.extend(body);
    }
    Json::Object(document)
}

fn object(keys: &[Key]) -> Json {
    let properties: Map<String, Json> = keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<_> = keys.iter().map(|key| key.name).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn property(key: &Key) -> Json {
    let (of_type, more) = match key.kind {
        Kind::Text => ("string", None),
        Kind::Time => ("string", Some(("format", json!("date-time")))),
        Kind::Integer => ("integer", Some(("minimum", json!(0)))),
        Kind::Seconds => ("number", Some(("minimum", json!(0)))),
        Kind::Bool => ("boolean", None),
        Kind::OneOf(words) => {
            let words = words.iter().map(|word| json!(word));
            ("string", Some(("enum", words.chain(key.nullable.then_some(Json::Null)).collect())))
        }
        Kind::Objects(keys) => ("array", Some(("items", object(&keys())))),
    };
    let mut property = Map::new();
    property.insert("description".to_owned(), json!(key.help));
    property.insert("type".to_owned(), if key.nullable { json!([of_type, "null"]) } else { json!(of_type) });
    property.extend(more.map(|(keyword, value)| (keyword.to_owned(), value)));
    Json::Object(property)
}
