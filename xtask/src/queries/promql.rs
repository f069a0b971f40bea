//! PromQL, as much of it as our rules and dashboards use: which labels a query's result has, and whether every metric and every
//! label in it exists. What is not known here is an error, so that nothing goes unchecked.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// Names of labels.
pub(super) type Labels = BTreeSet<String>;

/// What exists: metrics with their labels, among them those that Prometheus gives to whatever it scrapes.
#[derive(Debug, Default)]
pub(super) struct Metrics(BTreeMap<String, Labels>);

const OF_THE_TARGET: [&str; 2] = ["job", "instance"];

impl Metrics {
    /// A metric of ours, as it is once it has been scraped.
    pub(super) fn scraped(&mut self, name: &str, kind: &str, labels: &[&str]) {
        let all = || labels.iter().chain(&OF_THE_TARGET).map(|label| (*label).to_owned());
        if kind == "histogram" {
            self.0.insert(format!("{name}_bucket"), all().chain(["le".to_owned()]).collect());
            self.0.insert(format!("{name}_sum"), all().collect());
            self.0.insert(format!("{name}_count"), all().collect());
        } else {
            self.0.insert(name.to_owned(), all().collect());
        }
    }

    /// The result of a recording rule.
    pub(super) fn recorded(&mut self, name: &str, labels: Labels) {
        self.0.insert(name.to_owned(), labels);
    }

    pub(super) fn labels_of(&self, name: &str) -> Result<&Labels> {
        self.0.get(name).with_context(|| format!("there is no metric {name}"))
    }
}

/// The labels that the result of `query` has.
pub(super) fn labels(query: &str, metrics: &Metrics) -> Result<Labels> {
    let read = || {
        let mut reader = Reader { tokens: tokens(query)?, at: 0, metrics };
        let value = reader.expression(0)?;
        ensure!(reader.at == reader.tokens.len(), "{:?} is left over", reader.tokens[reader.at]);
        Ok(value.labels)
    };
    read().with_context(|| format!("in the query {query}"))
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Name(String),
    Number,
    Text,
    /// `[5m]`.
    Range,
    Sign(&'static str),
}

/// The longer ones first.
const SIGNS: [&str; 21] =
    ["==", "!=", "=~", "!~", ">=", "<=", "(", ")", "{", "}", ",", "+", "-", "*", "/", "%", "^", ">", "<", "=", "@"];

fn tokens(query: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = query.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => {
                tokens.push(Token::Text);
                end_of_text(rest).context("a text does not end")?
            }
            '[' => {
                tokens.push(Token::Range);
                rest.find(']').context("a range does not end")? + 1
            }
            _ if first.is_ascii_digit() => {
                tokens.push(Token::Number);
                while_matches(rest, |c| c.is_ascii_digit() || c == '.')
            }
            _ if first.is_ascii_alphabetic() || first == '_' => {
                let length = while_matches(rest, |c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
                tokens.push(Token::Name(rest[..length].to_owned()));
                length
            }
            _ => {
                let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
                let sign = sign.with_context(|| format!("{first:?} is not known here"))?;
                tokens.push(Token::Sign(sign));
                sign.len()
            }
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn end_of_text(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            '"' if !escaped => return Some(index + 1),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

fn while_matches(text: &str, matches: impl Fn(char) -> bool) -> usize {
    text.find(|character| !matches(character)).unwrap_or(text.len())
}

/// A part of a query.
#[derive(Debug, Default)]
struct Value {
    labels: Labels,
    /// Labels that the selector fixes, which absent() gives to its result.
    fixed: Labels,
    is_scalar: bool,
}

impl Value {
    fn vector(labels: Labels) -> Self {
        Self { labels, ..Self::default() }
    }

    fn scalar() -> Self {
        Self { is_scalar: true, ..Self::default() }
    }

    fn has(&self, labels: &Labels) -> Result<()> {
        match labels.difference(&self.labels).next() {
            Some(label) => bail!("there is no label {label}, only {:?}", self.labels),
            None => Ok(()),
        }
    }
}

/// How two vectors are matched.
#[derive(Debug, Default)]
struct Matching {
    on: Option<Labels>,
    /// Of group_left.
    taken: Option<Labels>,
}

/// What a function makes of labels.
#[derive(Clone, Copy)]
enum Function {
    Keeps,
    Quantile,
    Absent,
    Time,
}

const FUNCTIONS: [(&str, Function); 8] = [
    ("rate", Function::Keeps),
    ("increase", Function::Keeps),
    ("max_over_time", Function::Keeps),
    ("min_over_time", Function::Keeps),
    ("round", Function::Keeps),
    ("histogram_quantile", Function::Quantile),
    ("absent", Function::Absent),
    ("time", Function::Time),
];
const AGGREGATIONS: [&str; 5] = ["sum", "min", "max", "avg", "count"];
/// These give some of the series that they get, as they are.
const SELECTIONS: [&str; 2] = ["topk", "bottomk"];
/// The operators, those that bind least first.
const LEVELS: [&[&str]; 5] =
    [&["or"], &["and", "unless"], &["==", "!=", ">", "<", ">=", "<="], &["+", "-"], &["*", "/", "%"]];

struct Reader<'a> {
    tokens: Vec<Token>,
    at: usize,
    metrics: &'a Metrics,
}

impl Reader<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Result<Token> {
        let token = self.peek().context("the query ends too early")?.clone();
        self.at += 1;
        Ok(token)
    }

    fn takes(&mut self, token: &Token) -> bool {
        let there = self.peek() == Some(token);
        self.at += usize::from(there);
        there
    }

    fn takes_sign(&mut self, sign: &'static str) -> bool {
        self.takes(&Token::Sign(sign))
    }

    fn takes_word(&mut self, word: &str) -> bool {
        self.takes(&Token::Name(word.to_owned()))
    }

    fn sign(&mut self, sign: &'static str) -> Result<()> {
        let found = self.next()?;
        ensure!(found == Token::Sign(sign), "there is {found:?} where {sign:?} should be");
        Ok(())
    }

    fn expression(&mut self, level: usize) -> Result<Value> {
        let Some(operators) = LEVELS.get(level) else {
            return self.operand();
        };
        let mut left = self.expression(level + 1)?;
        while let Some(operator) = self.operator(operators) {
            let matching = self.matching()?;
            let right = self.expression(level + 1)?;
            left = combined(operator, left, &right, matching).with_context(|| format!("at {operator:?}"))?;
        }
        Ok(left)
    }

    fn operator(&mut self, operators: &[&'static str]) -> Option<&'static str> {
        operators.iter().copied().find(|operator| self.takes_sign(operator) || self.takes_word(operator))
    }

    fn matching(&mut self) -> Result<Matching> {
        let mut matching = Matching::default();
        if self.takes_word("on") {
            matching.on = Some(self.list()?);
        }
        if self.takes_word("group_left") {
            let named = self.peek() == Some(&Token::Sign("("));
            matching.taken = Some(if named { self.list()? } else { Labels::new() });
        }
        Ok(matching)
    }

    /// `(a, b)`.
    fn list(&mut self) -> Result<Labels> {
        let mut labels = Labels::new();
        self.sign("(")?;
        while !self.takes_sign(")") {
            let Token::Name(label) = self.next()? else { bail!("a label is missing in a list") };
            labels.insert(label);
            self.takes_sign(",");
        }
        Ok(labels)
    }

    fn operand(&mut self) -> Result<Value> {
        match self.next()? {
            Token::Number => Ok(Value::scalar()),
            Token::Sign("-") => self.operand(),
            Token::Sign("(") => {
                let value = self.expression(0)?;
                self.sign(")")?;
                Ok(value)
            }
            Token::Name(name) => self.named(&name),
            token => bail!("{token:?} is not known here"),
        }
    }

    fn named(&mut self, name: &str) -> Result<Value> {
        if AGGREGATIONS.contains(&name) || SELECTIONS.contains(&name) {
            return self.aggregation(name);
        }
        if self.peek() != Some(&Token::Sign("(")) {
            return self.selector(name);
        }
        let function = FUNCTIONS.iter().find(|(known, _)| *known == name);
        let (_, function) = function.with_context(|| format!("the function {name} is not known here"))?;
        let vector = self.arguments()?;
        match function {
            Function::Time => Ok(Value::scalar()),
            Function::Absent => Ok(Value::vector(vector.fixed)),
            Function::Keeps => Ok(Value::vector(vector.labels)),
            Function::Quantile => {
                let mut labels = vector.labels;
                ensure!(labels.remove("le"), "{name} needs the label le");
                Ok(Value::vector(labels))
            }
        }
    }

    /// The one among the arguments that is no number.
    fn arguments(&mut self) -> Result<Value> {
        let mut vector = Value::scalar();
        self.sign("(")?;
        while !self.takes_sign(")") {
            let value = self.expression(0)?;
            if !value.is_scalar {
                vector = value;
            }
            self.takes_sign(",");
        }
        Ok(vector)
    }

    fn aggregation(&mut self, name: &str) -> Result<Value> {
        let mut kept = self.grouping()?;
        let vector = self.arguments()?;
        if kept.is_none() {
            kept = self.grouping()?;
        }
        let labels = match kept {
            None => Labels::new(),
            Some((by, labels)) => {
                vector.has(&labels).with_context(|| format!("at {name}"))?;
                if by { labels } else { vector.labels.difference(&labels).cloned().collect() }
            }
        };
        Ok(Value::vector(if SELECTIONS.contains(&name) { vector.labels } else { labels }))
    }

    /// True with the labels of `by`, false with those of `without`.
    fn grouping(&mut self) -> Result<Option<(bool, Labels)>> {
        let by = self.takes_word("by");
        Ok(if by || self.takes_word("without") { Some((by, self.list()?)) } else { None })
    }

    fn selector(&mut self, name: &str) -> Result<Value> {
        let mut value = Value::vector(self.metrics.labels_of(name)?.clone());
        if self.takes_sign("{") {
            while !self.takes_sign("}") {
                let Token::Name(label) = self.next()? else { bail!("a label is missing in {{}} of {name}") };
                let Token::Sign(sign @ ("=" | "!=" | "=~" | "!~")) = self.next()? else {
                    bail!("the label {label} of {name} is not compared");
                };
                ensure!(self.next()? == Token::Text, "the label {label} of {name} is not compared with a text");
                let label = Labels::from([label]);
                value.has(&label).with_context(|| format!("at {name}"))?;
                if sign == "=" {
                    value.fixed.extend(label);
                }
                self.takes_sign(",");
            }
        }
        self.takes(&Token::Range);
        Ok(value)
    }
}

fn combined(operator: &str, left: Value, right: &Value, matching: Matching) -> Result<Value> {
    if left.is_scalar {
        return Ok(Value { labels: right.labels.clone(), fixed: Labels::new(), is_scalar: right.is_scalar });
    }
    if right.is_scalar {
        return Ok(left);
    }
    match &matching.on {
        Some(on) => left.has(on).and_then(|()| right.has(on))?,
        None => {
            let (left, right) = (&left.labels, &right.labels);
            ensure!(left == right, "the labels of both sides differ, so nothing matches: {left:?}, {right:?}");
        }
    }
    if matches!(operator, "and" | "or" | "unless") {
        return Ok(left);
    }
    match (matching.on, matching.taken) {
        (_, Some(taken)) => {
            right.has(&taken)?;
            Ok(Value::vector(left.labels.union(&taken).cloned().collect()))
        }
        (Some(on), None) => Ok(Value::vector(on)),
        (None, None) => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        let mut metrics = Metrics::default();
        metrics.scraped("depth", "gauge", &["listener", "netns"]);
        metrics.scraped("limit", "gauge", &["listener", "netns"]);
        metrics.scraped("cause", "gauge", &["listener", "netns", "cause"]);
        metrics.scraped("wait_seconds", "histogram", &["listener"]);
        metrics
    }

    #[test]
    fn the_labels_of_a_result_follow_from_the_query() {
        for (query, expected) in [
            ("depth", "instance job listener netns"),
            ("-depth{netns=\"1\"} > 3", "instance job listener netns"),
            ("1000 * depth", "instance job listener netns"),
            ("depth / limit > 0.9", "instance job listener netns"),
            ("sum by (job) (depth)", "job"),
            ("sum(rate(depth[5m])) by (job)", "job"),
            ("sum without (netns, job, instance) (depth)", "listener"),
            ("sum(depth)", ""),
            ("topk by (job) (1, cause == 1)", "cause instance job listener netns"),
            ("depth * on (job, listener) group_left (cause) (cause == 1)", "cause instance job listener netns"),
            ("depth * on (job, listener) depth", "job listener"),
            ("depth and on (listener) cause{cause!=\"none\"}", "instance job listener netns"),
            ("histogram_quantile(0.99, sum by (le) (rate(wait_seconds_bucket[$__rate_interval])))", ""),
            ("absent(depth{job=\"a \\\" b\",netns=~\"1\"})", "job"),
        ] {
            let found: Vec<String> = labels(query, &metrics()).unwrap().into_iter().collect();
            assert_eq!(found.join(" "), expected, "{query}");
        }
    }

    #[test]
    fn what_does_not_exist_is_an_error() {
        for (query, expected) in [
            ("dept", "there is no metric dept"),
            ("wait_seconds", "there is no metric wait_seconds"),
            ("depth{port=\"80\"}", "there is no label port"),
            ("sum by (port) (depth)", "there is no label port"),
            ("sum without (port) (depth)", "there is no label port"),
            ("depth * on (cause) cause", "there is no label cause"),
            ("cause * on (cause) depth", "there is no label cause"),
            ("depth * on (job) group_left (port) cause", "there is no label port"),
            ("depth * cause", "nothing matches"),
            ("histogram_quantile(0.9, rate(wait_seconds_count[5m]))", "needs the label le"),
            ("deriv(depth[5m])", "the function deriv is not known here"),
            ("sum(depth", "the query ends too early"),
            ("depth)", "is left over"),
            ("depth offset 5m", "is left over"),
            ("depth{netns=\"1}", "a text does not end"),
        ] {
            let error = format!("{:#}", labels(query, &metrics()).unwrap_err());
            assert!(error.contains(expected), "{query}: {error}");
        }
    }
}
