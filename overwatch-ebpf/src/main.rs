//! Kernel side of overwatch: programs that keep the connection table, and nothing else.
//!
//! The entry points only find their arguments, by fentry, kprobe or tracepoint: [`bytes`] (sent, received), [`connect`],
//! [`accept`], [`states`] (transitions, end of life), [`resets`], [`refusals`] (what a full queue refuses), [`seed`] (what was there
//! before us) and [`scan`] (listening sockets and their waiting clients). The logic is shared:
//! [`entry`] (how an entry begins), [`table`] (what moves), [`ends`] (its last record), [`listeners`], [`changes`] (telling of
//! transitions), [`totals`] (the kernel's own counters) and [`sockets`] (what a socket says about itself).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(clippy::needless_pass_by_value, reason = "the macros of aya-ebpf hand programs their context by value")]
#![expect(clippy::needless_borrows_for_generic_args, reason = "a value handed over is a second copy on a small stack")]

mod accept;
mod bytes;
mod changes;
mod connect;
mod ends;
mod entry;
mod kernel;
mod listeners;
mod maps;
mod refusals;
mod resets;
mod scan;
mod seed;
mod sockets;
mod states;
mod table;
mod totals;

/// A panic that can be reached would be a loop without an end, which the verifier refuses at load.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lends helpers such as `bpf_probe_read_kernel` to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
