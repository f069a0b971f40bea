//! A running `overwatch serve`, and what it answers.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::host::{Tier, patience};
use super::overwatch;
use super::proc::{Output, Proc};

/// A running `overwatch serve` at a port of the kernel's choice.
#[derive(Debug)]
pub struct Daemon {
    process: Proc,
    address: SocketAddr,
}

/// What is said of a port, or of a listener.
pub type Labels = BTreeMap<String, String>;

/// A scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// Each series with its number.
    pub samples: Vec<(String, Labels, f64)>,
    /// As it came.
    pub text: String,
}

/// An answer of a HTTP server.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The number in the first line.
    pub status: u16,
    /// All before the empty line.
    pub head: String,
    /// All behind it.
    pub body: String,
}

impl Daemon {
    /// Starts it in `tier`, or in the best there is, and waits until it sees everything.
    pub fn start(tier: Option<Tier>, extra: &[&str]) -> Result<Self> {
        let all = ["serve", "-v", "--web.listen-address", "127.0.0.1:0", "--attach", tier.map_or("auto", Tier::name)];
        Self::start_command(overwatch::command(&[&all[..], extra].concat()))
    }

    /// The same with a command of the caller's.
    pub fn start_command(command: Command) -> Result<Self> {
        let mut process = Proc::start(command)?;
        process.close_stdin();
        process.wait_for_stderr(patience(60), |line| line.starts_with("overwatch: ready"))?;
        let said = process.stderr();
        let address = said.lines().find_map(|line| line.strip_prefix("overwatch: listening at "));
        let address = address.with_context(|| format!("it does not say where it listens:\n{said}"))?.parse()?;
        Ok(Self { process, address })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its child processes: the one that answers requests.
    pub fn children(&self) -> Result<Vec<u32>> {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.id()))?;
        Ok(children.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Waits until a line of stderr satisfies `wanted`.
    pub fn wait_for_stderr(&mut self, seconds: u64, wanted: impl Fn(&str) -> bool) -> Result<()> {
        self.process.wait_for_stderr(patience(seconds), wanted)
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// What is at a path.
    pub fn get(&self, path: &str) -> Result<Reply> {
        get(self.address, path)
    }

    /// The metrics as of the last interval. A reload of passwords or certificates closes connections that have asked for nothing yet: then
    /// it asks once more.
    ///
    /// A daemon on a busy host answers 503 with Retry-After when the page does not come in time: then it asks again, as Prometheus does.
    pub fn scrape(&self) -> Result<Scrape> {
        let deadline = Instant::now() + patience(30);
        let mut reply = self.get("/metrics").or_else(|_| self.get("/metrics"))?;
        while reply.status == 503 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(500));
            reply = self.get("/metrics")?;
        }
        ensure!(reply.status == 200, "{}\n{}", reply.head, reply.body);
        Scrape::parse(&reply.body)
    }

    /// Scrapes until `enough` is satisfied.
    pub fn scrape_until(&self, seconds: u64, enough: impl Fn(&Scrape) -> bool) -> Result<Scrape> {
        let deadline = Instant::now() + patience(seconds);
        loop {
            let scrape = self.scrape()?;
            if enough(&scrape) {
                return Ok(scrape);
            }
            ensure!(Instant::now() < deadline, "not after {seconds} seconds; the last scrape was\n{}", scrape.text);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Ends it as systemd does.
    pub fn stop(self) -> Result<Output> {
        self.process.signal(Signal::SIGTERM)?;
        self.finish()
    }

    /// Waits for its end, which must be a good one.
    pub fn finish(self) -> Result<Output> {
        let output = self.process.finish(patience(60))?;
        ensure!(output.code == Some(0), "it ended with {:?}; stderr:\n{}", output.code, output.stderr);
        Ok(output)
    }

    /// Ends it at once, so that it cannot clean up.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(patience(30))?;
        Ok(())
    }
}

/// What is at a path of a server.
pub fn get(address: SocketAddr, path: &str) -> Result<Reply> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    exchange(address, request.as_bytes())
}

/// What a server answers to these bytes.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&address, patience(5))?;
    stream.set_read_timeout(Some(patience(20)))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Reply::parse(&String::from_utf8(answer)?)
}

impl Reply {
    fn parse(answer: &str) -> Result<Self> {
        let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("no answer: {answer:?}") };
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok(Self { status, head: head.to_owned(), body: body.to_owned() })
    }
}

impl Scrape {
    /// Reads the text format.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| sample(line).with_context(|| format!("no sample: {line}")));
        Ok(Self { samples: samples.collect::<Result<_>>()?, text: text.to_owned() })
    }

    /// The series of a metric that have these labels.
    pub fn of<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = (&'a Labels, f64)> {
        let has = |of: &Labels| labels.iter().all(|(label, value)| of.get(*label).is_some_and(|own| own == value));
        let samples = self.samples.iter().filter(move |(of, with, _)| of == name && has(with));
        samples.map(|(_, with, value)| (with, *value))
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).map(|(_, value)| value).sum()
    }

    /// The only one.
    pub fn one(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let found: Vec<_> = self.of(name, labels).collect();
        match found[..] {
            [(_, value)] => Ok(value),
            _ => bail!("{} series of {name}{labels:?}: {found:?}", found.len()),
        }
    }

    /// How many series a metric has.
    #[must_use]
    pub fn series(&self, name: &str) -> usize {
        self.of(name, &[]).count()
    }
}

/// A line of the text format.
fn sample(line: &str) -> Result<(String, Labels, f64)> {
    let (name, rest) = line.split_at(line.find(['{', ' ']).context("no name")?);
    let mut labels = Labels::new();
    let mut rest = rest;
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").context("a label has a value")?;
            let (value, after) = quoted(after)?;
            ensure!(labels.insert(label.to_owned(), value).is_none(), "{label} twice");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    Ok((name.to_owned(), labels, rest.trim().parse()?))
}

/// Up to the closing quote, and what is behind it.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next().context("nothing is escaped")?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    bail!("a value does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_read_with_everything_that_labels_may_have() {
        let text =
            "# HELP a b\n# TYPE a counter\na_total{x=\"1\",y=\"a \\\"q\\\" \\\\ \\n}\"} 2.5\na_total{x=\"2\"} 1\nb 3\n";
        let scrape = Scrape::parse(text).unwrap();
        let labels = scrape.of("a_total", &[("x", "1")]).next().unwrap().0;
        assert_eq!(labels["y"], "a \"q\" \\ \n}");
        assert_eq!(
            (scrape.sum("a_total", &[]), scrape.one("b", &[]).unwrap(), scrape.series("a_total")),
            (3.5, 3.0, 2)
        );
        assert!(scrape.one("a_total", &[]).is_err());
        for wrong in ["a", "a{x=\"1\" 2", "a{x=\"1} 2", "a b"] {
            assert!(Scrape::parse(wrong).is_err(), "{wrong}");
        }
    }
}
