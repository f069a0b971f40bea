//! `overwatch check`: can this host run it, how, and what is missing.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use super::{
    Failure,
    args::{Global, Output},
    say::say,
    startup::{self, Announce, Hangup},
};
use crate::{
    collect::{DiagSession, Session, SessionError},
    kernel::{host::HostFacts, processes},
    probes::{
        attach::Outcome,
        capabilities::{self, Verb},
        catalogue::Hook,
        kretprobe::Kretprobes,
        object::Interest,
        plan::Refusal,
    },
    show::check::{self, Report, Verdict},
};

/// Attaches for real, since nothing else tells what works.
pub(super) fn run(global: &Global, verb: Option<Verb>) -> Result<ExitCode, Failure> {
    let announce = Announce::new(global.verbose);
    let (out, result) = startup::guarded(announce, Hangup::Ends, |kretprobes| report(global, verb, kretprobes))??;
    // A reader who stands still is no reason to be deaf.
    startup::guarded(Announce::Never, Hangup::Ends, |_| {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&out)?;
        stdout.flush()
    })??;
    result.map_or(Ok(ExitCode::SUCCESS), |refusal| Err(Failure::Host(refusal)))
}

/// The report, and why overwatch, or the verb, cannot run here if it cannot.
fn report(global: &Global, verb: Option<Verb>, kretprobes: &Kretprobes) -> Result<(Vec<u8>, Option<Refusal>), Failure> {
    let root = Path::new("/");
    let host = HostFacts::read(root);
    let capacity = global.capacity();
    // The interest that needs most, so that everything is tried.
    let started = Session::start(&host, root, global.attach(), &capacity, Interest::Service, kretprobes);
    let degradations = match &started {
        Err(SessionError::Refused { refusal, .. }) => {
            let listeners = DiagSession::start(&host, root).map(|_| DiagSession::LOSS);
            capabilities::without_programs(refusal, listeners.map_err(|error| error.to_string()))
        }
        _ => Vec::new(),
    };
    let verdict = match &started {
        Ok(session) => Verdict::Runs {
            attached: session.attached(),
            seeded: session.seeded(),
            seeded_connections: session.seeded_connections()?,
        },
        Err(SessionError::Refused { refusal, attempts }) => {
            Verdict::Cannot { refusal, attempts, degradations: &degradations }
        }
        Err(_) => {
            return Err(started.err().map_or_else(|| Failure::Running(anyhow::anyhow!("cannot start")), Failure::from));
        }
    };
    if global.verbose {
        for attempt in verdict.attempts() {
            attempt.hooks.iter().for_each(|(hook, outcome)| print_verifier_log(hook, outcome));
        }
    }
    let report = Report {
        host: &host,
        capacity: &capacity,
        wanted: global.attach(),
        verb,
        resident_memory_bytes: processes::resident_memory_bytes(root),
        verdict,
    };
    let mut out = Vec::new();
    match global.output {
        Output::Json => check::write_json(&mut out, &report)?,
        Output::Table => {
            check::write_text(&mut out, &report)?;
            if global.verbose {
                let objects = started.as_ref().map_or_else(|_| Vec::new(), Session::kernel_objects);
                check::details::write(&mut out, &report, &objects)?;
            }
        }
        Output::Csv => {
            return Err(Failure::Arguments("check has no CSV output: use -o table or -o json".to_owned()));
        }
    }
    Ok((out, report.refusal()))
}

fn print_verifier_log(hook: &Hook, outcome: &Outcome) {
    if let Outcome::Refused(cause) = outcome
        && !cause.verifier_log.is_empty()
    {
        say(format_args!("the verifier on {}:\n{}", hook.target, cause.verifier_log));
    }
}
