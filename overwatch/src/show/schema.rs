//! JSON Schema of the outputs, made from the tables of their keys.

use serde_json::{Map, Value as Json, json};

use super::columns::{Key, Kind, keys, life, listeners, open, states, top};

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
        ("listeners", object(listeners::INTERVAL)),
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
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("object"));
    object.extend(body(keys));
    Json::Object(object)
}

/// What an object must consist of.
fn body(keys: &[Key]) -> Map<String, Json> {
    let properties: Map<String, Json> = keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<_> = keys.iter().map(|key| key.name).collect();
    of_keywords([
        ("properties", Json::Object(properties)),
        ("required", json!(required)),
        ("additionalProperties", json!(false)),
    ])
}

fn of_keywords<const N: usize>(keywords: [(&str, Json); N]) -> Map<String, Json> {
    keywords.into_iter().map(|(keyword, value)| (keyword.to_owned(), value)).collect()
}

fn property(key: &Key) -> Json {
    let (of_type, more) = match key.kind {
        Kind::Text => ("string", Map::new()),
        Kind::Time => ("string", of_keywords([("format", json!("date-time"))])),
        Kind::Integer => ("integer", of_keywords([("minimum", json!(0))])),
        Kind::Seconds => ("number", of_keywords([("minimum", json!(0))])),
        Kind::Bool => ("boolean", Map::new()),
        Kind::OneOf(words) => {
            let words = words.iter().map(|word| json!(word));
            let words = words.chain(key.nullable.then_some(Json::Null)).collect();
            ("string", of_keywords([("enum", words)]))
        }
        Kind::Texts => ("array", of_keywords([("items", json!({ "type": "string" }))])),
        Kind::Object(keys) => ("object", body(&keys())),
        Kind::Objects(keys) => ("array", of_keywords([("items", object(&keys()))])),
    };
    let mut property = Map::new();
    property.insert("description".to_owned(), json!(key.help));
    property.insert("type".to_owned(), if key.nullable { json!([of_type, "null"]) } else { json!(of_type) });
    property.extend(more);
    Json::Object(property)
}
