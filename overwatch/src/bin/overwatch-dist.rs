//! Writes what a package has beside the program: man pages and completions, from the declaration of the arguments. It is run by
//! `cargo xtask dist` and is in no package itself.

use std::{env, fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;
use overwatch::cli::args::Arguments;

const NAME: &str = "overwatch";
/// Those whose completions a package has a place for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

fn main() -> ExitCode {
    let Some(directory) = env::args_os().nth(1) else {
        eprintln!("overwatch-dist: name the directory to write to");
        return ExitCode::from(2);
    };
    match write(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overwatch-dist: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> Result<()> {
    let pages = directory.join("man");
    let completions = directory.join("completions");
    for directory in [&pages, &completions] {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    // One page for each verb: overwatch-top(1).
    clap_mangen::generate_to(Arguments::command(), &pages)
        .with_context(|| format!("cannot write to {}", pages.display()))?;
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut Arguments::command(), NAME, &completions)
            .with_context(|| format!("cannot write to {}", completions.display()))?;
    }
    Ok(())
}
