//! How a metric is declared, once, and how what was counted becomes lines of Prometheus' text format.

use prometheus::{
    Encoder as _, TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

/// What a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, as long as what it is of exists.
    Counter,
    /// As it is now.
    Gauge,
    /// How many took how long.
    Histogram,
}

impl Kind {
    /// The word in the text format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    fn field_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::COUNTER,
            Self::Gauge => MetricType::GAUGE,
            Self::Histogram => MetricType::HISTOGRAM,
        }
    }
}

/// A metric, and where its points come from.
pub(super) struct Family<T: ?Sized> {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Labels beside those of the table that it stands in.
    pub(super) labels: &'static [&'static str],
    /// What it is, with its unit, and when there is no point.
    pub(super) help: &'static str,
    pub(super) points: fn(&T, &mut Points),
}

/// For the tables.
pub(super) const fn family<T: ?Sized>(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    points: fn(&T, &mut Points),
) -> Family<T> {
    Family { name, kind, labels, help, points }
}

/// A metric without where its points come from: for the documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: &'static str,
    /// What its numbers mean.
    pub kind: Kind,
    /// All its labels.
    pub labels: Vec<&'static str>,
    /// What it is.
    pub help: &'static str,
}

/// The declarations of a table whose families all have those labels.
pub(super) fn declared<T: ?Sized>(families: &[Family<T>], labels: &[&'static str]) -> Vec<Declared> {
    let of = |family: &Family<T>| Declared {
        name: family.name,
        kind: family.kind,
        labels: labels.iter().chain(family.labels).copied().collect(),
        help: family.help,
    };
    families.iter().map(of).collect()
}

/// How many took how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Distribution<'a> {
    /// Upper edges, rising.
    pub(super) edges_seconds: &'a [f64],
    /// How many took no longer than the edge of the same place. Each one includes those before it.
    pub(super) at_most: &'a [u64],
    /// How many there were, with those beyond the last edge.
    pub(super) count: u64,
    pub(super) sum_seconds: f64,
}

impl Distribution<'_> {
    fn histogram(&self) -> Histogram {
        let buckets = self.edges_seconds.iter().zip(self.at_most).map(|(edge, at_most)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*edge);
            bucket.set_cumulative_count(*at_most);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(self.count);
        histogram.set_sample_sum(self.sum_seconds);
        histogram
    }
}

/// Where a family puts its points.
pub(super) struct Points {
    kind: Kind,
    names: Vec<&'static str>,
    /// Values of the labels that the table gives.
    base: Vec<String>,
    metrics: Vec<Metric>,
}

impl Points {
    /// The only one.
    pub(super) fn put(&mut self, value: f64) {
        self.put_at(&[], value);
    }

    /// The only one, of a number of things.
    pub(super) fn count(&mut self, number: u64) {
        self.put(number as f64);
    }

    /// The only one, if it is known.
    pub(super) fn put_known(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.put(value);
        }
    }

    /// One of several, by the family's own labels.
    pub(super) fn put_at(&mut self, labels: &[&str], value: f64) {
        let mut metric = self.metric(labels);
        if self.kind == Kind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// One for each of the names: 1 for the one that holds, 0 for the others.
    pub(super) fn state(&mut self, names: &[&str], now: &str) {
        for name in names {
            self.put_at(&[name], if *name == now { 1.0 } else { 0.0 });
        }
    }

    /// A histogram.
    pub(super) fn distribution(&mut self, distribution: &Distribution<'_>) {
        let mut metric = self.metric(&[]);
        metric.set_histogram(distribution.histogram());
        self.metrics.push(metric);
    }

    fn metric(&self, labels: &[&str]) -> Metric {
        let values = self.base.iter().map(String::as_str).chain(labels.iter().copied());
        let pairs = self.names.iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.to_owned());
            pair
        });
        Metric::from_label(pairs.collect())
    }
}

/// The families of a table, each with the points of all items. `values` are those of the labels that all have.
pub(super) fn write<T>(
    families: &[Family<T>],
    labels: &[&'static str],
    items: &[(Vec<String>, T)],
    out: &mut Vec<MetricFamily>,
) {
    let items = || items.iter().map(|(values, item)| (values.as_slice(), item));
    write_each(families, labels, items, out);
}

/// The families of what there is one of.
pub(super) fn write_one<T>(families: &[Family<T>], item: &T, out: &mut Vec<MetricFamily>) {
    write_each(families, &[], || std::iter::once((&[][..], item)), out);
}

fn write_each<'t, T: 't, I: Iterator<Item = (&'t [String], &'t T)>>(
    families: &[Family<T>],
    labels: &[&'static str],
    items: impl Fn() -> I,
    out: &mut Vec<MetricFamily>,
) {
    for family in families {
        let names = labels.iter().chain(family.labels).copied().collect();
        let mut points = Points { kind: family.kind, names, base: Vec::new(), metrics: Vec::new() };
        for (values, item) in items() {
            points.base = values.to_vec();
            (family.points)(item, &mut points);
        }
        // Without points there is nothing to declare: the text format wants a family's lines together, and here are none.
        if points.metrics.is_empty() {
            continue;
        }
        let mut written = MetricFamily::default();
        written.set_name(family.name.to_owned());
        written.set_help(family.help.to_owned());
        written.set_field_type(family.kind.field_type());
        written.set_metric(points.metrics);
        out.push(written);
    }
}

/// The page.
pub(super) fn text(families: &[MetricFamily]) -> Result<String, String> {
    let mut out = Vec::new();
    TextEncoder::new().encode(families, &mut out).map_err(|error| format!("cannot write the metrics: {error}"))?;
    String::from_utf8(out).map_err(|error| format!("cannot write the metrics: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Door {
        open: bool,
        visitors: Option<u64>,
    }

    const DOORS: &[Family<Door>] = &[
        family("door_visitors_total", Kind::Counter, &[], "Who came.", |door, points| {
            points.put_known(door.visitors.map(|visitors| visitors as f64));
        }),
        family("door_state", Kind::Gauge, &["state"], "How it is.", |door, points| {
            points.state(&["open", "shut"], if door.open { "open" } else { "shut" });
        }),
        family("door_wait_seconds", Kind::Histogram, &[], "How long.", |door, points| {
            if let Some(visitors) = door.visitors {
                points.distribution(&Distribution {
                    edges_seconds: &[0.5, 1.0],
                    at_most: &[1, visitors + 1],
                    count: visitors + 2,
                    sum_seconds: 2.25,
                });
            }
        }),
        family("door_never", Kind::Gauge, &[], "Nothing.", |_, _| {}),
    ];

    #[test]
    fn every_item_has_its_points_under_each_family() {
        let doors = [
            (vec!["front \"\\\n".to_owned()], Door { open: true, visitors: Some(3) }),
            (vec!["back".to_owned()], Door { open: false, visitors: None }),
        ];
        let mut families = Vec::new();
        write(DOORS, &["door"], &doors, &mut families);
        let expected = "\
# HELP door_visitors_total Who came.
# TYPE door_visitors_total counter
door_visitors_total{door=\"front \\\"\\\\\\n\"} 3
# HELP door_state How it is.
# TYPE door_state gauge
door_state{door=\"front \\\"\\\\\\n\",state=\"open\"} 1
door_state{door=\"front \\\"\\\\\\n\",state=\"shut\"} 0
door_state{door=\"back\",state=\"open\"} 0
door_state{door=\"back\",state=\"shut\"} 1
# HELP door_wait_seconds How long.
# TYPE door_wait_seconds histogram
door_wait_seconds_bucket{door=\"front \\\"\\\\\\n\",le=\"0.5\"} 1
door_wait_seconds_bucket{door=\"front \\\"\\\\\\n\",le=\"1\"} 4
door_wait_seconds_bucket{door=\"front \\\"\\\\\\n\",le=\"+Inf\"} 5
door_wait_seconds_sum{door=\"front \\\"\\\\\\n\"} 2.25
door_wait_seconds_count{door=\"front \\\"\\\\\\n\"} 5
";
        assert_eq!(text(&families).unwrap(), expected);
    }
}
