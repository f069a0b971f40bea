//! `overwatch states` and `overwatch life`: a line for each thing that happens.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use crossterm::terminal;
use tokio::time::{Instant, interval, sleep_until};

use super::{
    Failure,
    args::{self, Global},
    color,
    output::Output,
    watch::{self, EVERY, ROOT, Watch},
};
use crate::{
    collect::Sample,
    kernel::cgroups::Cgroups,
    model::{
        filter::{Filter, Subject},
        life::{self, Life},
        states::{States, Transition},
    },
    probes::object::Interest,
    show::{
        self,
        columns::states::LostTransitions,
        stream::{Format, Shape, Stream},
    },
};

/// More text than this is not made while nobody reads it: the kernel side holds what it can, and counts the rest.
const MOST_UNREAD_BYTES: usize = 1024 * 1024;

/// Where lines come from.
trait Source {
    /// What a line stands for.
    type Line: 'static;
    /// What stands for lines that are missing.
    type Lost: 'static;
    /// What the kernel side must tell.
    const INTEREST: Interest;
    /// How they are shown.
    const SHAPE: &'static Shape<Self::Line, Self::Lost>;

    fn update(&mut self, sample: &Sample) -> (Vec<Self::Line>, Vec<Self::Lost>);
    fn finish(&mut self) -> Vec<Self::Line>;
    fn subject(line: &Self::Line) -> Subject<'_>;
}

impl Source for Life {
    type Line = life::Line;
    type Lost = life::Lost;
    const INTEREST: Interest = Interest::Ends;
    const SHAPE: &'static Shape<Self::Line, Self::Lost> = &show::life::SHAPE;

    fn update(&mut self, sample: &Sample) -> (Vec<Self::Line>, Vec<Self::Lost>) {
        let lives = Self::update(self, sample);
        (lives.lines, lives.lost)
    }

    fn finish(&mut self) -> Vec<Self::Line> {
        Self::finish(self).lines
    }

    fn subject(line: &Self::Line) -> Subject<'_> {
        line.subject()
    }
}

impl Source for States {
    type Line = Transition;
    type Lost = LostTransitions;
    const INTEREST: Interest = Interest::Changes;
    const SHAPE: &'static Shape<Self::Line, Self::Lost> = &show::states::SHAPE;

    fn update(&mut self, sample: &Sample) -> (Vec<Self::Line>, Vec<Self::Lost>) {
        let transitions = Self::update(self, sample);
        let lost_events = transitions.lost_events;
        let lost = (lost_events > 0).then_some(LostTransitions { time: sample.time, lost_events });
        (transitions.lines, lost.into_iter().collect())
    }

    fn finish(&mut self) -> Vec<Self::Line> {
        Vec::new()
    }

    fn subject(line: &Self::Line) -> Subject<'_> {
        line.subject()
    }
}

/// `overwatch states`.
pub(super) fn states(global: &Global, arguments: &args::Stream) -> Result<ExitCode, Failure> {
    watch::run(stream(global, arguments, States::default()))
}

/// `overwatch life`.
pub(super) fn life(global: &Global, arguments: &args::Stream) -> Result<ExitCode, Failure> {
    watch::run(stream(global, arguments, Life::default()))
}

async fn stream<S: Source>(global: &Global, arguments: &args::Stream, mut source: S) -> Result<ExitCode, Failure> {
    let mut writer = Writer::<S>::new(global, watch::filter(&arguments.filter)?)?;
    let mut watch = Watch::start(global, S::INTEREST)?;
    let end = arguments.duration.map(|duration| Instant::now() + duration);
    let mut ticks = watch::every(interval(EVERY));
    let mut output = Output::start();
    loop {
        let more = watch.session.has_more();
        let last = tokio::select! {
            biased;
            () = watch.told_to_end() => true,
            () = async { if let Some(end) = end { sleep_until(end).await } }, if end.is_some() => true,
            result = output.written(), if output.is_waiting() => {
                result.context("cannot write to standard output").map_err(Failure::Running)?;
                false
            }
            () = async { if !more { ticks.tick().await; } }, if writer.text.len() < MOST_UNREAD_BYTES => {
                writer.take(&mut source, &watch.session.portion()?)?;
                false
            }
        };
        if last {
            while watch.session.has_more() {
                writer.take(&mut source, &watch.session.portion()?)?;
                watch::written_in_time(&mut output).await?;
                if output.is_waiting() {
                    // Nobody reads.
                    break;
                }
                output.send(std::mem::take(&mut writer.text))?;
            }
            writer.take(&mut source, &watch.session.last_sample()?)?;
            writer.write(&source.finish(), &[])?;
            watch::written_in_time(&mut output).await?;
        }
        if !output.is_waiting() && !writer.text.is_empty() {
            output.send(std::mem::take(&mut writer.text))?;
        }
        if last {
            watch::written_in_time(&mut output).await?;
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// From lines to text.
struct Writer<S: Source> {
    stream: Stream<S::Line, S::Lost>,
    filter: Filter,
    cgroups: Cgroups,
    /// What was not handed over yet.
    text: Vec<u8>,
}

impl<S: Source> Writer<S> {
    fn new(global: &Global, filter: Filter) -> Result<Self, Failure> {
        let format = match global.output {
            args::Output::Table => Format::Table {
                color: color(global),
                width: io::stdout().is_terminal().then(|| terminal::size().map_or(80, |(width, _)| width.into())),
            },
            args::Output::Json => Format::Json,
            args::Output::Csv => Format::Csv,
        };
        let mut writer =
            Self { stream: Stream::new(S::SHAPE, format), filter, cgroups: Cgroups::default(), text: Vec::new() };
        writer.stream.write_heading(&mut writer.text)?;
        Ok(writer)
    }

    fn take(&mut self, source: &mut S, sample: &Sample) -> Result<(), Failure> {
        let (lines, lost) = source.update(sample);
        self.write(&lines, &lost)
    }

    fn write(&mut self, lines: &[S::Line], lost: &[S::Lost]) -> Result<(), Failure> {
        let cgroup_of = |line: &S::Line| S::subject(line).process.map_or(0, |process| process.cgroup_id);
        self.cgroups.resolve(Path::new(ROOT), lines.iter().map(cgroup_of).filter(|number| *number != 0));
        let chosen: Vec<_> = lines
            .iter()
            .map(|line| (line, self.cgroups.path(cgroup_of(line))))
            .filter(|(line, cgroup)| self.filter.matches(&S::subject(line), *cgroup))
            .collect();
        self.stream.write_lines(&mut self.text, &chosen)?;
        for lost in lost {
            self.stream.write_lost(&mut self.text, lost)?;
        }
        Ok(())
    }
}
