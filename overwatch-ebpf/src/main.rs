//! Kernel side of overwatch: programs that keep the connection table, and nothing else.
//!
//! One body of logic per signal ([`table`]), shared by its fentry, kprobe and tracepoint entry points, which only
//! find their arguments: [`bytes`] (sent, received), [`accept`], [`states`] (transitions, end of life) and [`seed`]
//! (connections that were there before us).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(clippy::needless_pass_by_value, reason = "the macros of aya-ebpf hand programs their context by value")]
#![expect(clippy::needless_borrows_for_generic_args, reason = "a value handed over is a second copy on a small stack")]

mod accept;
mod bytes;
mod kernel;
mod maps;
mod seed;
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
