//! Reading the running kernel: facts from its BTF as constants, memory by `bpf_probe_read_kernel`.

use core::mem::MaybeUninit;

use aya_ebpf::{
    Global,
    helpers::{bpf_probe_read_kernel_buf, bpf_probe_read_user_buf, generated},
};
use overwatch_common::{connection::COMM_LEN, kernel::ABSENT, with_arguments, with_enumerators, with_offsets};

macro_rules! offsets {
    ($($name:ident = $structure:literal, $member:literal, $needed:ident;)*) => {
        $(#[unsafe(no_mangle)] pub(crate) static $name: Global<u32> = Global::new(ABSENT);)*
    };
}
macro_rules! enumerators {
    ($($name:ident = $enumerator:literal, $needed:ident;)*) => {
        $(#[unsafe(no_mangle)] pub(crate) static $name: Global<u32> = Global::new(ABSENT);)*
    };
}
macro_rules! arguments {
    ($($name:ident = $prototype:literal, $argument:literal;)*) => {
        $(#[unsafe(no_mangle)] pub(crate) static $name: Global<u32> = Global::new(ABSENT);)*
    };
}
with_offsets!(offsets);
with_enumerators!(enumerators);
with_arguments!(arguments);

/// Which changes of state or owner the user side wants to be told of (see `overwatch_common::event::want`).
#[unsafe(no_mangle)]
pub(crate) static WANT_CHANGES: Global<u32> = Global::new(0);

/// A kernel address. Never dereferenced here, only read through the helper, which refuses what is not mapped.
pub(crate) type Address = u64;

/// Reads a value at `base + offset`; 0 when the kernel cannot read there.
///
/// The helper's result is not looked at: where the kernel cannot read, the helper fills the value with zeroes
/// (`bpf_probe_read_kernel_common`, kernel/trace/bpf_trace.c, v5.10 to v7.2), and a branch after each read would multiply the paths that the verifier
/// follows.
#[inline(always)]
pub(crate) fn read<T: Copy + Default>(base: Address, offset: u32) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let source = (base + u64::from(offset)) as *const core::ffi::c_void;
    // SAFETY: the helper checks the source address itself and fills all of the T, which is of integers.
    unsafe {
        let _zeroed = generated::bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, source);
        value.assume_init()
    }
}

/// Reads bytes at `base + offset` to where they belong; zeroes when the kernel cannot read there.
#[inline(always)]
pub(crate) fn read_into(target: &mut [u8], base: Address, offset: u32) {
    // SAFETY: the helper checks the source address itself, and the target is as long as it is told.
    let _zeroed = unsafe { bpf_probe_read_kernel_buf((base + u64::from(offset)) as *const u8, target) };
}

/// Reads the pointer at `base + offset`; `None` when it is null or cannot be read.
#[inline(always)]
pub(crate) fn follow(base: Address, offset: u32) -> Option<Address> {
    let pointer: u64 = read(base, offset);
    (pointer != 0).then_some(pointer)
}

/// Loads 8 bytes at a fixed place of a context.
///
/// Written in assembly because kernels before 6.10 or so accept only `[context + constant]`, and the compiler would turn
/// a choice between places into an address that it computes.
#[inline(always)]
fn load<const OFFSET: usize>(context: *const core::ffi::c_void) -> u64 {
    let value: u64;
    // SAFETY: loads 8 bytes of the context; the verifier refuses the program if they are not there.
    unsafe {
        core::arch::asm!("{value} = *(u64 *)({context} + {offset})",
            value = out(reg) value, context = in(reg) context, offset = const OFFSET);
    }
    value
}

/// Argument of a program whose context is an array of 64-bit values (fexit, tp_btf, iterators). BTF told its position;
/// the verifier knows it and keeps only that branch.
#[inline(always)]
pub(crate) fn argument(context: *const core::ffi::c_void, position: &Global<u32>) -> u64 {
    match position.load() {
        0 => load::<0>(context),
        1 => load::<8>(context),
        2 => load::<16>(context),
        3 => load::<24>(context),
        4 => load::<32>(context),
        5 => load::<40>(context),
        6 => load::<48>(context),
        _ => 0,
    }
}

/// One program at a tracepoint, in two types: as tp_btf, and as raw_tp for kernels that refuse tp_btf. Both get the tracepoint's arguments as an
/// array of 64-bit values; the user side loads one of them.
macro_rules! at_tracepoint {
    ($tracepoint:literal, $typed:ident, $raw:ident, $body:path) => {
        #[unsafe(no_mangle)]
        #[unsafe(link_section = concat!("tp_btf/", $tracepoint))]
        pub(crate) extern "C" fn $typed(context: *mut core::ffi::c_void) -> i32 {
            $body(context);
            0
        }

        #[unsafe(no_mangle)]
        #[unsafe(link_section = concat!("raw_tp/", $tracepoint))]
        pub(crate) extern "C" fn $raw(context: *mut core::ffi::c_void) -> i32 {
            $body(context);
            0
        }
    };
}
pub(crate) use at_tracepoint;

/// An argument of a raw tracepoint program, by its offset in bytes.
#[inline(always)]
pub(crate) fn argument_of_raw<const OFFSET: usize>(context: *const core::ffi::c_void) -> u64 {
    load::<OFFSET>(context)
}

/// Argument of a probed function, in the registers of the System V calling convention.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn register(context: *const core::ffi::c_void, position: &Global<u32>) -> u64 {
    use core::mem::offset_of;

    use aya_ebpf::bindings::pt_regs;
    match position.load() {
        0 => load::<{ offset_of!(pt_regs, rdi) }>(context),
        1 => load::<{ offset_of!(pt_regs, rsi) }>(context),
        2 => load::<{ offset_of!(pt_regs, rdx) }>(context),
        3 => load::<{ offset_of!(pt_regs, rcx) }>(context),
        4 => load::<{ offset_of!(pt_regs, r8) }>(context),
        5 => load::<{ offset_of!(pt_regs, r9) }>(context),
        _ => 0,
    }
}

/// Reads bytes of the current process's own memory; zeroes when it has none there.
#[inline(always)]
pub(crate) fn read_user(target: &mut [u8], address: u64) {
    // SAFETY: the helper checks the source address itself, and the target is as long as it is told.
    let _zeroed = unsafe { bpf_probe_read_user_buf(address as *const u8, target) };
}

/// The first two arguments of the system call that the current process is in. Linux 5.15 and later.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn syscall_arguments() -> (u64, u64) {
    use core::mem::offset_of;

    use aya_ebpf::{
        bindings::pt_regs,
        helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    };
    // SAFETY: no arguments but the task that the kernel has just given; the registers are its own.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf().cast()) } as Address;
    (read(registers, offset_of!(pt_regs, rdi) as u32), read(registers, offset_of!(pt_regs, rsi) as u32))
}

/// Fills `name` with that of the current process: of its main thread, not of the thread that happens to run.
#[inline(always)]
pub(crate) fn process_name(name: &mut [u8; COMM_LEN]) {
    // SAFETY: no arguments; gives the address of the current task.
    let task = unsafe { generated::bpf_get_current_task() };
    if let Some(leader) = follow(task, TASK_GROUP_LEADER.load()) {
        read_into(name, leader, TASK_COMM.load());
    }
}
