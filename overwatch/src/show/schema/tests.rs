//! The files in docs/schema, and whether what is written is what they say.

use std::path::Path;

use super::*;
use crate::{
    model::{
        fixtures::{life_line, row, transition, unknown_life_line, unknown_transition},
        queue::fixtures as queue,
    },
    show::columns::{Column, Fields, Value},
};

/// Set it to write the files anew.
const WRITE: &str = "OVERWATCH_WRITE_SCHEMA";

#[test]
fn the_schema_files_are_those_that_the_tables_give() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    for (verb, schema) in files() {
        let path = folder.join(format!("{verb}.schema.json"));
        let text = format!("{schema:#}\n");
        if std::env::var_os(WRITE).is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{} is old: {WRITE}=1 cargo test -p overwatch schema", path.display());
    }
}

fn is_of(kind: Kind, value: &Value) -> bool {
    match (kind, value) {
        (Kind::Text, Value::Text(_))
        | (Kind::Integer, Value::Number(_))
        | (Kind::Seconds, Value::Seconds(_))
        | (Kind::Bool, Value::Bool(_))
        | (Kind::Texts, Value::Texts(_)) => true,
        (Kind::Time, Value::Text(text)) => humantime::parse_rfc3339(text).is_ok(),
        (Kind::OneOf(words), Value::Text(text)) => words.contains(&text.as_str()),
        (Kind::Object(keys), Value::Object(fields)) => are_of(&keys(), fields),
        (Kind::Objects(keys), Value::Objects(all)) => all.iter().all(|fields| are_of(&keys(), fields)),
        _ => false,
    }
}

fn are_of(keys: &[Key], fields: &Fields) -> bool {
    let fits = |(key, (name, value)): (&Key, &(&str, Value))| {
        key.name == *name && if *value == Value::Null { key.nullable } else { is_of(key.kind, value) }
    };
    keys.len() == fields.len() && keys.iter().zip(fields).all(fits)
}

fn check<T>(columns: &[Column<T>], known: &T, unknown: &T) {
    for column in columns {
        for of in [known, unknown] {
            let value = (column.value)(of, None);
            let fits = if value == Value::Null { column.key.nullable } else { is_of(column.key.kind, &value) };
            assert!(fits, "{column:?} is {value:?}");
        }
        let key = column.key;
        // Two of them exist for the other role only, and the paths of control groups come from elsewhere.
        if key.nullable && !["cgroup", "connect_seconds"].contains(&key.name) && !key.name.starts_with("kernel_") {
            assert!((column.value)(known, None) != Value::Null, "{}", key.name);
        }
        assert_eq!((column.value)(unknown, None) == Value::Null, key.nullable, "{}", key.name);
    }
}

#[test]
fn values_are_what_the_schema_says() {
    let unknown_row = crate::model::snapshot::Row { process: None, netns: 0, role: None, state: 0, ..row() };
    check(top::CONNECTION, &row(), &unknown_row);
    check(life::LIFE, &life_line(), &unknown_life_line());
    check(states::TRANSITION, &transition(), &unknown_transition());
    check(listeners::LISTENER, &queue::row(), &queue::unknown_row());
    check(listeners::PROCESS, &queue::holder(42), &queue::unknown_holder());
    let nobody = crate::model::queue::Waiting { waiting: None, state: 99, ..queue::waiting(1, 1, 1) };
    check(listeners::WAITING, &queue::waiting(1, 1, 1), &nobody);
}

#[test]
fn a_schema_names_every_key_and_no_other() {
    let of = |verb: &str| files().into_iter().find(|(of, _)| *of == verb).map(|(_, schema)| schema).unwrap();
    let life = of("life");
    let [line, lost] = life["oneOf"].as_array().unwrap().as_slice() else { panic!("{life}") };
    for (object, count) in [(line, 34), (lost, 8), (&of("top")["properties"]["connections"]["items"], 19)] {
        assert_eq!(object["properties"].as_object().unwrap().len(), count);
        assert_eq!(object["required"].as_array().unwrap().len(), count);
        assert_eq!(object["additionalProperties"], false);
    }
    assert_eq!(line["properties"]["retransmits"]["type"], json!(["integer", "null"]));
    assert_eq!(line["properties"]["sent_bytes"]["type"], "integer");
    assert_eq!(line["properties"]["role"]["enum"], json!(["client", "server", null]));
    assert_eq!(line["properties"]["time"]["format"], "date-time");
    let states = of("states");
    let words = states["oneOf"][0]["properties"]["old_state"]["enum"].as_array().unwrap();
    assert_eq!((words.len(), &words[0], &words[12]), (13, &json!("ESTABLISHED"), &Json::Null));
    assert_eq!(of("open")["properties"]["listeners"]["items"]["required"].as_array().unwrap().len(), 7);
    let listeners = of("listeners");
    let row = &listeners["properties"]["listeners"]["items"];
    assert_eq!(row["required"].as_array().unwrap().len(), listeners::LISTENER.len());
    assert_eq!(row["properties"]["evidence"]["items"], json!({ "type": "string" }));
    assert_eq!(row["properties"]["waiting"]["items"]["required"].as_array().unwrap().len(), 6);
    let waits = &row["properties"]["accept_wait_seconds"];
    assert_eq!(
        (&waits["type"], &waits["required"]),
        (&json!(["object", "null"]), &json!(["p50", "p90", "p99", "max"]))
    );
    assert_eq!(waits["additionalProperties"], false);
}
