//! Rule files as JSON values, which all checks read. Every scalar is a text.

use anyhow::{Context as _, Result, bail};
use saphyr_parser::{Event, Parser, StrInput};
use serde_json::{Map, Value};

/// The one document in `text`.
pub(super) fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser::new_from_str(text);
    loop {
        match next(&mut parser)? {
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            event => return node(event, &mut parser),
        }
    }
}

fn next<'a>(parser: &mut Parser<'a, StrInput<'a>>) -> Result<Event<'a>> {
    let (event, _) = parser.next().context("it ends too early")??;
    Ok(event)
}

fn node<'a>(event: Event<'a>, parser: &mut Parser<'a, StrInput<'a>>) -> Result<Value> {
    match event {
        Event::Scalar(text, ..) => Ok(Value::String(text.into_owned())),
        Event::SequenceStart(..) => {
            let mut values = Vec::new();
            loop {
                match next(parser)? {
                    Event::SequenceEnd => return Ok(Value::Array(values)),
                    event => values.push(node(event, parser)?),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut values = Map::new();
            loop {
                let key = match next(parser)? {
                    Event::MappingEnd => return Ok(Value::Object(values)),
                    Event::Scalar(key, ..) => key.into_owned(),
                    event => bail!("a key is not a text but {event:?}"),
                };
                let event = next(parser)?;
                values.insert(key, node(event, parser)?);
            }
        }
        event => bail!("{event:?} is not known here"),
    }
}
