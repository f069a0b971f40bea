//! What the collecting process knows, and the page that it makes of it.

use std::{
    collections::HashSet,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    cli::{Failure, say::say, watch::ROOT},
    collect::{Sample, Session, SessionError},
    config::{self, Series, Settings},
    export::{
        Exporter, Itself, Timing,
        link::{Message as _, ToWeb},
    },
    kernel::{cgroups::Cgroups, host},
    model::{
        judged::Judged,
        open::Open,
        services::{Limits, Services},
        traffic::Traffic,
    },
};

/// For so long a page is handed out again, if no interval has ended.
const SHARED: Duration = Duration::from_secs(1);

/// How many series of services there may be.
fn limits(settings: &Settings) -> Limits {
    let Series { services, ports, idle, .. } = settings.series;
    Limits { services, ports, idle }
}

/// The models and what is said of them.
pub(super) struct Daemon {
    settings: Settings,
    traffic: Traffic,
    open: Open,
    judged: Judged,
    services: Services,
    exporter: Exporter,
    cgroups: Cgroups,
    ticks: Timing,
    scrapes: Timing,
    /// The page of this interval, and when it was made.
    page: Option<(Instant, String)>,
    /// Whether the last reload went well so far, and when the configuration in force was read.
    reload: (bool, SystemTime),
}

impl Daemon {
    pub(super) fn new(settings: Settings, session: &mut Session) -> Result<Self, SessionError> {
        let first = session.sample()?;
        let services = Services::new(host::ephemeral_ports(Path::new(ROOT)), &limits(&settings));
        let mut daemon = Self {
            traffic: Traffic::default(),
            open: Open::default(),
            judged: Judged::new(settings.thresholds.clone(), &first),
            services,
            exporter: Exporter::default(),
            cgroups: Cgroups::default(),
            ticks: Timing::default(),
            scrapes: Timing::default(),
            page: None,
            reload: (true, first.time),
            settings,
        };
        daemon.follow(&first);
        Ok(daemon)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes what has happened, so that the kernel side has room again.
    pub(super) fn keep_up(&mut self, session: &mut Session) -> Result<(), SessionError> {
        let start = Instant::now();
        session.drain()?;
        if session.is_laden() {
            let part = session.part()?;
            self.judged.take_in(&part);
            self.follow(&part);
        }
        self.ticks.add(start.elapsed());
        Ok(())
    }

    pub(super) fn end_interval(&mut self, session: &mut Session) -> Result<(), SessionError> {
        let start = Instant::now();
        let sample = session.sample()?;
        let judged = self.judged.end(&sample);
        self.exporter.update(judged.rows, self.settings.series.listeners);
        self.follow(&sample);
        // Now, since a group may be gone when somebody asks.
        self.name_cgroups();
        self.page = None;
        self.ticks.add(start.elapsed());
        Ok(())
    }

    fn follow(&mut self, sample: &Sample) {
        let snapshot = self.traffic.update(sample);
        self.open.update(sample);
        self.services.update(sample, &snapshot, &self.open);
    }

    /// The configuration was read anew. What is wrong leaves the one before in force.
    pub(super) fn reload(&mut self, read: Result<Settings, Failure>) {
        self.page = None;
        match read {
            Ok(new) => {
                let (settings, ignored) = config::changed(&self.settings, &new);
                for key in ignored {
                    say(format_args!("{key} has changed, which takes a restart"));
                }
                self.judged.set_thresholds(settings.thresholds.clone());
                self.services.set_limits(&limits(&settings));
                self.settings = settings;
                self.reload.0 = true;
            }
            Err(error) => {
                say(format_args!("the configuration stays as it was: {error}"));
                self.reload.0 = false;
            }
        }
    }

    /// The process that answers requests has read its part anew.
    pub(super) fn web_reloaded(&mut self, result: Result<(), String>) {
        self.page = None;
        if let Err(why) = result {
            say(format_args!("the configuration of the HTTP server stays as it was: {why}"));
            self.reload.0 = false;
        }
        if self.reload.0 {
            say(format_args!("the configuration was read anew"));
            self.reload.1 = SystemTime::now();
        }
    }

    /// The metrics as of the last interval.
    pub(super) fn page(&mut self, session: &Session) -> ToWeb {
        // However many ask, the work that is done for them is bounded.
        if let Some((made, page)) = &self.page
            && made.elapsed() < SHARED
        {
            return ToWeb::Page(page.clone());
        }
        let start = Instant::now();
        let page = self.text(session);
        self.scrapes.add(start.elapsed());
        if let Ok(page) = &page {
            self.page = Some((start, page.clone()));
        }
        match page {
            Ok(page) if page.len() <= ToWeb::LONGEST as usize => ToWeb::Page(page),
            Ok(_) => ToWeb::NoPage("the metrics are too long: lower the limits of [series]".to_owned()),
            Err(why) => ToWeb::NoPage(why),
        }
    }

    fn name_cgroups(&mut self) {
        let of_services = self.services.services().filter_map(|(service, _)| service.cgroup_id);
        let numbers: HashSet<u64> = self.exporter.cgroups().chain(of_services).collect();
        self.cgroups.keep(&numbers);
        self.cgroups.resolve(Path::new(ROOT), numbers.iter().copied());
    }

    fn text(&mut self, session: &Session) -> Result<String, String> {
        let attached = session.attached();
        let itself = Itself {
            tier: attached.tier,
            capabilities: attached.capabilities(),
            degradations: attached.degradations.iter().map(|missing| (missing.what.clone(), missing.loss)).collect(),
            programs: session.programs(),
            maps: session.map_readings().map_err(|error| error.to_string())?,
            counters: session.counters(),
            ticks: self.ticks.clone(),
            scrapes: self.scrapes.clone(),
            reload: self.reload,
        };
        let path = |number| self.cgroups.path(number);
        self.services.merge(&path);
        self.exporter.page(&self.services, &self.open, &self.settings.series, itself, &path)
    }
}
