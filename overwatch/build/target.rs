//! Which targets the kernel side's object is built for. `build.rs` asks it, and the library's unit tests check it.

/// What cargo calls the target: `CARGO_CFG_TARGET_ARCH`, `_OS` and `_ENDIAN`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) arch: &'a str,
    pub(crate) os: &'a str,
    pub(crate) endian: &'a str,
}

/// Why overwatch cannot be built for `target`, in one line; `None` where it can.
///
/// The object would load on another machine and read the wrong registers: its kprobes have the offsets of x86_64's `struct pt_regs`
/// compiled in (`bpf_target_arch`).
pub(crate) fn refusal(target: Target<'_>) -> Option<String> {
    match target {
        Target { arch: "x86_64", os: "linux", endian: "little" } => None,
        Target { arch, os, endian } => Some(format!(
            "overwatch cannot be built for {arch} ({os}, {endian}-endian): its eBPF object, ebpf/overwatch.bpf.o, is compiled for x86_64 \
             Linux only, and reads x86_64 registers. Supported targets: x86_64 Linux. The object is built from \
             overwatch-ebpf by `cargo xtask build-ebpf`, which needs the registers of {arch} before it can support it"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_targets_of_the_object_are_built() {
        for (arch, os, endian, is_built) in [
            ("x86_64", "linux", "little", true),
            ("aarch64", "linux", "little", false),
            ("aarch64", "linux", "big", false),
            ("riscv64", "linux", "little", false),
            ("s390x", "linux", "big", false),
            ("powerpc64", "linux", "little", false),
            ("x86", "linux", "little", false),
            ("x86_64", "macos", "little", false),
            ("x86_64", "windows", "little", false),
            ("x86_64", "linux", "big", false),
            ("", "", "", false),
        ] {
            let refusal = refusal(Target { arch, os, endian });
            assert_eq!(refusal.is_none(), is_built, "{arch} {os} {endian}: {refusal:?}");
            if let Some(refusal) = refusal {
                assert!(!refusal.contains('\n'), "one line: {refusal}");
                for word in [arch, os, endian, "Supported targets: x86_64 Linux", "cargo xtask build-ebpf"] {
                    assert!(refusal.contains(word), "{word} is not in: {refusal}");
                }
            }
        }
    }
}
