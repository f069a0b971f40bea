//! Puts the kernel side's object where the program includes it from: the one in the tree, so that a user needs nothing
//! but stable Rust, or the one that `OVERWATCH_EBPF_OBJECT` names (tests run what was just built from source).
use std::{env, error::Error, fs, path::PathBuf};

#[path = "build/target.rs"]
mod target;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build/target.rs");
    println!("cargo::rerun-if-env-changed=OVERWATCH_EBPF_OBJECT");
    let [arch, os, endian] = ["ARCH", "OS", "ENDIAN"].map(|of| env::var(format!("CARGO_CFG_TARGET_{of}")));
    if let Some(refusal) = target::refusal(target::Target { arch: &arch?, os: &os?, endian: &endian? }) {
        // Cargo shows the line as an error of this package and ends the build.
        println!("cargo::error={refusal}");
        return Ok(());
    }
    let object =
        env::var_os("OVERWATCH_EBPF_OBJECT").map_or_else(|| PathBuf::from("ebpf/overwatch.bpf.o"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let target = PathBuf::from(env::var("OUT_DIR")?).join("overwatch.bpf.o");
    fs::copy(&object, &target).map_err(|error| format!("{}: {error}", object.display()))?;
    Ok(())
}
