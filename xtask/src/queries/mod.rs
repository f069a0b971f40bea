//! Holds the queries in the rules and in the dashboard against `docs/metrics.md`: every metric and every label in them exists, and
//! so does every page that an alert links.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::shell;

mod promql;
mod yaml;

use promql::{Labels, Metrics};

const METRICS: &str = "docs/metrics.md";
const CAUSES: &str = "docs/listeners.md";
const ALERTS: &str = "overwatch/dist/prometheus/alerts.yml";
const RECORDING: &str = "overwatch/dist/prometheus/recording.yml";
const RULE_TESTS: [&str; 3] = [
    "overwatch/dist/prometheus/tests/itself.yml",
    "overwatch/dist/prometheus/tests/listeners.yml",
    "overwatch/dist/prometheus/tests/recording.yml",
];
const DASHBOARD: &str = "overwatch/dist/grafana/overwatch.json";

fn path(name: &str) -> PathBuf {
    shell::root().join(name)
}

fn read(name: &str) -> Result<String> {
    fs::read_to_string(path(name)).with_context(|| format!("cannot read {name}"))
}

/// The cells of the tables in a Markdown text, each row with the headings of its table.
fn rows(text: &str) -> Vec<Vec<(String, String)>> {
    let mut headings: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    for line in text.lines() {
        let Some(line) = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            headings = None;
            continue;
        };
        let cells: Vec<String> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
        match &headings {
            None => headings = Some(cells),
            Some(_) if cells.iter().all(|cell| cell.chars().all(|c| matches!(c, '-' | ':'))) => {}
            Some(headings) => rows.push(headings.iter().cloned().zip(cells).collect()),
        }
    }
    rows
}

fn cell<'a>(row: &'a [(String, String)], heading: &str) -> Option<&'a str> {
    row.iter().find(|(name, _)| name == heading).map(|(_, cell)| cell.as_str())
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The metrics in the documentation, and what Prometheus itself knows of a target.
fn metrics() -> Result<Metrics> {
    let text = read(METRICS).context("it lists what overwatch exports")?;
    let mut metrics = Metrics::default();
    metrics.scraped("up", "gauge", &[]);
    let mut found = 0;
    for row in rows(&text) {
        let (Some(name), Some(kind)) = (cell(&row, "metric"), cell(&row, "type")) else { continue };
        let labels = cell(&row, "labels").with_context(|| format!("{METRICS}: {name} has no column `labels`"))?;
        let name = quoted(name).first().copied().with_context(|| format!("{METRICS}: {name} is not in backticks"))?;
        metrics.scraped(name, kind, &quoted(labels));
        found += 1;
    }
    ensure!(found > 0, "{METRICS} has no table with the columns metric, type and labels");
    Ok(metrics)
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("{key} is missing in {value}"))
}

/// The rules in a file.
fn rules(name: &str) -> Result<Vec<Value>> {
    let file = yaml::parse(&read(name)?).with_context(|| name.to_owned())?;
    let groups = file["groups"].as_array().context("there are no groups")?;
    Ok(groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
}

/// Adds what the recording rules make.
fn record(metrics: &mut Metrics) -> Result<()> {
    for rule in rules(RECORDING)? {
        let labels = promql::labels(text(&rule, "expr")?, metrics)?;
        let name = text(&rule, "record")?;
        // level:metric:operation, where the level is the labels that are left.
        let level: Labels = name.split(':').next().unwrap_or_default().split('_').map(str::to_owned).collect();
        ensure!(level == labels, "{name} has the labels {labels:?}");
        metrics.recorded(name, labels);
    }
    Ok(())
}

/// Names that follow `start` in a template.
fn names_after<'a>(template: &'a str, start: &str) -> Vec<&'a str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    template.split(start).skip(1).map(|rest| rest.split(|c| !is_name(c)).next().unwrap_or_default()).collect()
}

/// The queries that a template makes: `printf "..." | query`, with a text in place of each %q.
fn queries_in(template: &str) -> Result<Vec<String>> {
    let mut queries = Vec::new();
    for rest in template.split("printf \"").skip(1) {
        let (call, _) = rest.split_once("| query").context("printf is used for something else than a query")?;
        let end = call.replace("\\\"", "\\'").find('"').context("a text does not end")?;
        queries.push(call[..end].replace("\\\"", "\"").replace("%q", "\"x\""));
    }
    Ok(queries)
}

/// That every name in a template exists. `labels` are those of the alert.
fn template(template: &str, labels: &Labels, metrics: &Metrics) -> Result<()> {
    for name in names_after(template, "$labels.") {
        ensure!(labels.contains(name), "the alert has no label {name}: {template}");
    }
    let mut found = Labels::new();
    for query in queries_in(template)? {
        found.extend(promql::labels(&query, metrics)?);
    }
    for name in names_after(template, ".Labels.") {
        ensure!(found.contains(name), "the query has no label {name}: {template}");
    }
    Ok(())
}

/// The pages that a link can lead to: one for each cause, when it has the cause in it.
fn pages(link: &str) -> Result<Vec<String>> {
    const CAUSE: &str = "{{ $labels.cause }}";
    if !link.contains(CAUSE) {
        return Ok(vec![link.to_owned()]);
    }
    let documentation = read(CAUSES)?;
    let rows = rows(&documentation);
    let causes = rows.iter().filter_map(|row| cell(row, "cause")).flat_map(quoted).filter(|cause| *cause != "none");
    let pages: Vec<String> = causes.map(|cause| link.replace(CAUSE, cause)).collect();
    ensure!(!pages.is_empty(), "{CAUSES} has no table of causes");
    Ok(pages)
}

/// That the page and, behind #, the section are there.
fn page_exists(link: &str) -> Result<()> {
    let (page, section) = link.split_once('#').map_or((link, None), |(page, section)| (page, Some(section)));
    let text = read(page)?;
    let anchor = |heading: &str| heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    let has = |section: &str| text.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == section);
    ensure!(section.is_none_or(has), "{link}: there is no such section");
    Ok(())
}

fn alert(rule: &Value, metrics: &Metrics) -> Result<()> {
    let mut labels = promql::labels(text(rule, "expr")?, metrics)?;
    let added = rule["labels"].as_object().context("there are no labels")?;
    let severity = text(&rule["labels"], "severity")?;
    ensure!(matches!(severity, "critical" | "warning" | "info"), "there is no severity {severity}");
    labels.extend(added.keys().cloned());
    let annotations = rule["annotations"].as_object().context("there are no annotations")?;
    for name in ["summary", "description", "runbook"] {
        ensure!(annotations.contains_key(name), "there is no {name}");
    }
    for value in annotations.values().chain(added.values()) {
        template(value.as_str().unwrap_or_default(), &labels, metrics)?;
    }
    pages(text(&rule["annotations"], "runbook")?)?.iter().try_for_each(|page| page_exists(page))
}

/// Each panel, also those in rows that are folded.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        found.push(panel);
        found.extend(panels(panel));
    }
    found
}

/// `{{a}} {{b}}`: the labels that a legend shows.
fn legend(panel: &str, target: &Value, labels: &Labels) -> Result<()> {
    for part in text(target, "legendFormat")?.split("{{").skip(1) {
        let name = part.split("}}").next().unwrap_or_default().trim();
        ensure!(labels.contains(name), "{panel}: the legend's {name} is no label of the query, which has {labels:?}");
    }
    Ok(())
}

#[test]
fn every_recording_rule_asks_for_what_is_exported() -> Result<()> {
    record(&mut metrics()?)
}

#[test]
fn every_alert_asks_for_what_is_exported_and_links_a_page_that_is_there() -> Result<()> {
    let metrics = metrics()?;
    let rules = rules(ALERTS)?;
    ensure!(!rules.is_empty(), "there are no alerts");
    for rule in &rules {
        let name = text(rule, "alert")?;
        alert(rule, &metrics).with_context(|| format!("alert {name}"))?;
    }
    Ok(())
}

#[test]
fn every_rule_has_a_test() -> Result<()> {
    let tests: String = RULE_TESTS.iter().map(|name| read(name)).collect::<Result<_>>()?;
    for rule in rules(ALERTS)?.iter().chain(&rules(RECORDING)?) {
        let name = text(rule, "alert").or_else(|_| text(rule, "record"))?;
        ensure!(tests.contains(name), "no test names {name}");
    }
    Ok(())
}

#[test]
fn every_panel_asks_for_what_is_exported() -> Result<()> {
    let metrics = metrics()?;
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)?)?;
    let mut seen = 0;
    let mut ids = std::collections::BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = text(panel, "title")?;
        ensure!(ids.insert(panel["id"].as_u64()), "{title}: its id is that of another panel");
        if panel["type"] != "row" {
            text(panel, "description").with_context(|| title.to_owned())?;
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            let labels = promql::labels(text(target, "expr")?, &metrics).with_context(|| title.to_owned())?;
            legend(title, target, &labels)?;
            seen += 1;
        }
    }
    ensure!(seen > 0, "there are no queries");
    Ok(())
}

#[test]
fn every_variable_of_the_dashboard_asks_for_what_is_exported() -> Result<()> {
    let metrics = metrics()?;
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)?)?;
    let mut names = Vec::new();
    for variable in dashboard["templating"]["list"].as_array().into_iter().flatten() {
        names.push(text(variable, "name")?);
        if variable["type"] != "query" {
            continue;
        }
        let definition = text(variable, "definition")?;
        let inside = definition.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (query, label) =
            inside.and_then(|inside| inside.rsplit_once(", ")).context("not label_values(query, label)")?;
        let labels = promql::labels(query, &metrics)?;
        ensure!(labels.contains(label), "{definition}: there is no label {label}");
    }
    assert_eq!(names, ["datasource", "job", "instance", "listener"]);
    Ok(())
}

#[test]
fn a_template_shows_only_what_the_alert_has() {
    let mut metrics = Metrics::default();
    metrics.scraped("cause", "gauge", &["cause"]);
    let labels = Labels::from(["job".to_owned()]);
    for (text, expected) in [
        ("{{ $labels.job }} {{ $value }}", None),
        ("{{ $labels.listener }}", Some("the alert has no label listener")),
        ("{{ range printf \"cause{job=%q}\" $labels.job | query }}{{ .Labels.cause }}{{ end }}", None),
        ("{{ range printf \"cause{port=%q}\" $labels.job | query }}{{ end }}", Some("there is no label port")),
        (
            "{{ range printf \"cause{job=\\\"a\\\"}\" | query }}{{ .Labels.port }}{{ end }}",
            Some("the query has no label port"),
        ),
        ("{{ printf \"%s\" $labels.job }}", Some("printf is used for something else")),
    ] {
        let found = template(text, &labels, &metrics).map_err(|error| format!("{error:#}"));
        match expected {
            None => assert_eq!(found, Ok(()), "{text}"),
            Some(expected) => assert!(found.unwrap_err().contains(expected), "{text}"),
        }
    }
}
