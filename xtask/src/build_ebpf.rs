//! `cargo xtask build-ebpf`: the eBPF object from its sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::shell;
use crate::sources;
use crate::toolchain::{self, Toolchain};

/// Build the eBPF object, by default the one in the tree.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to put the object, instead of into the tree.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    output: Option<PathBuf>,
    /// Build nothing; fail if the object in the tree was not built from the sources in the tree.
    #[arg(long)]
    check: bool,
}

const OBJECT: &str = "overwatch/ebpf/overwatch.bpf.o";
const SOURCES: &str = "overwatch/ebpf/overwatch.bpf.sources";

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = shell::root();
    if args.check {
        check(&root)?;
        println!("{OBJECT} was built from the sources in the tree");
        return Ok(ExitCode::SUCCESS);
    }
    let output = args.output.clone().unwrap_or_else(|| root.join(OBJECT));
    // Before the build: what somebody edits meanwhile may not be in the object. cargo may have to write Cargo.lock first.
    let before = root.join("Cargo.lock").exists().then(|| sources::fingerprint(&root)).transpose()?;
    let size = build(&output)?;
    if args.output.is_none() {
        let after = sources::fingerprint(&root)?;
        if before.is_some_and(|before| before != after) {
            bail!("the sources changed during the build: build again");
        }
        let path = root.join(SOURCES);
        fs::write(&path, after + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{}: {size} bytes", output.display());
    Ok(ExitCode::SUCCESS)
}

/// Fails when the tree's object was not built from the tree's sources.
pub(crate) fn check(root: &Path) -> Result<()> {
    let path = root.join(SOURCES);
    let recorded = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}; `cargo xtask build-ebpf` writes it", path.display()))?;
    if !root.join(OBJECT).is_file() {
        bail!("{OBJECT} is missing; `cargo xtask build-ebpf` builds it");
    }
    if recorded.trim() != sources::fingerprint(root)? {
        bail!(
            "{OBJECT} was not built from the sources in the tree: run `cargo xtask build-ebpf` and commit it with {SOURCES}"
        );
    }
    Ok(())
}

/// Builds the object and leaves it at `output` without what only debuggers read; returns its size.
fn build(output: &Path) -> Result<u64> {
    let toolchain = Toolchain::find()?;
    eprintln!("building with {}", toolchain.compiler.version);
    shell::run(&mut toolchain.cargo("build"))?;
    let built = toolchain.object();
    if let Some(dir) = output.parent() {
        shell::create_dir(dir)?;
    }
    // A reader never sees half an object.
    let mut unfinished = output.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    if let Some(objcopy) = toolchain::llvm("llvm-objcopy") {
        // .BTF and .BTF.ext are no debug information to it. Their relocations are for linkers; loaders skip them.
        let mut command = Command::new(objcopy);
        command.arg("--strip-debug");
        command.args(["--remove-section=.rel.BTF", "--remove-section=.rel.BTF.ext"]);
        shell::output(command.args([&built, &unfinished]))?;
    } else {
        eprintln!("no llvm-objcopy: the object keeps its debug information and is larger for it");
        fs::copy(&built, &unfinished).with_context(|| format!("cannot copy {}", built.display()))?;
    }
    complete(&unfinished)?;
    fs::rename(&unfinished, output).with_context(|| format!("cannot write {}", output.display()))?;
    let size = fs::metadata(output).with_context(|| format!("cannot read {}", output.display()))?.len();
    Ok(size)
}

/// Fails when a section is missing without which aya cannot load the object.
fn complete(object: &Path) -> Result<()> {
    let bytes = fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
    for section in [".BTF", ".BTF.ext", "license", "maps"] {
        let mut name = section.as_bytes().to_vec();
        name.push(0);
        if !bytes.windows(name.len()).any(|window| window == name) {
            bail!("{} has no section {section}: it cannot be loaded", object.display());
        }
    }
    Ok(())
}
