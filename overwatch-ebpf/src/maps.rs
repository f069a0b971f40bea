//! The maps. Sizes here are defaults: the user side sets them before it loads the object.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use overwatch_common::{
    connection::{Connecting, Connection, InFlight, Listener, Owner, Share, ShareKey},
    counter::{COUNTERS as COUNTER_NAMES, Counter},
    event::{AUDIT, CONTROL_WORDS, ClosedKey, EPOCH, LISTENERS_CHANGED, LostKey, LostSum, SKIPS, WAS_FULL},
    scan::SCAN_BYTES,
};

/// The connection table, keyed by the socket's address.
#[map]
pub(crate) static CONNECTIONS: HashMap<u64, Connection> = HashMap::with_max_entries(65_536, 0);

/// Shares of processes that use a socket which another process owns.
#[map]
pub(crate) static SHARES: HashMap<ShareKey, Share> = HashMap::with_max_entries(16_384, 0);

/// Final records that did not fit into the ring buffer.
#[map]
pub(crate) static DEFERRED: HashMap<ClosedKey, Connection> = HashMap::with_max_entries(65_536, 0);

/// What connections have moved whose final records fitted nowhere, by process.
#[map]
pub(crate) static LOST: HashMap<LostKey, LostSum> = HashMap::with_max_entries(4_096, 0);

/// Listening sockets, by the socket's address.
#[map]
pub(crate) static LISTENERS: HashMap<u64, Listener> = HashMap::with_max_entries(16_384, 0);

/// Sockets whose end the second program has seen first, until the first has (see `states`).
#[map]
pub(crate) static ENDED_AGAIN: LruHashMap<u64, u8> = LruHashMap::with_max_entries(4_096, 0);

/// Activity notices, changes and final records.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4 * 1024 * 1024, 0);

/// Records of the listener scan. Read after each listening socket, so it needs room for the largest one only.
#[map]
pub(crate) static SCANNED: RingBuf = RingBuf::with_byte_size(SCAN_BYTES, 0);

/// Calls between entry and return, keyed by thread (kprobe tier).
#[map]
pub(crate) static IN_FLIGHT: HashMap<u64, InFlight> = HashMap::with_max_entries(32_768, 0);

/// Connects that have not returned, keyed by thread (kprobe tier).
#[map]
pub(crate) static CONNECTING: HashMap<u64, Connecting> = HashMap::with_max_entries(4_096, 0);

/// Owners of the sockets that were open before the start, keyed by inode; read while seeding.
#[map]
pub(crate) static OWNERS: HashMap<u64, Owner> = HashMap::with_max_entries(1, 0);

/// Network namespaces whose open connections were all seeded, by inode number.
#[map]
pub(crate) static SEEDED_NETNS: HashMap<u32, u8> = HashMap::with_max_entries(16_384, 0);

/// Listeners with a backlog of 0, whose children look like clients, by network namespace and port; while seeding.
#[map]
pub(crate) static PLAIN_LISTENERS: HashMap<u64, u8> = HashMap::with_max_entries(1_024, 0);

/// Counters about overwatch itself.
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_NAMES.len() as u32, 0);

/// What the two sides tell each other while they run.
#[map]
static CONTROL: Array<u32> = Array::with_max_entries(CONTROL_WORDS, 0);

/// Adds to a counter that other CPUs may be adding to.
///
/// Written in assembly: the instruction that adds without giving the old value back is the only atomic one that kernels
/// before 5.12 have, and the bpf target has no read-modify-write in `core::sync::atomic`.
#[inline(always)]
pub(crate) fn add(counter: *mut u64, value: u64) {
    // SAFETY: callers pass a field of a live map value, aligned to 8 bytes; the verifier checks the bounds.
    unsafe {
        core::arch::asm!("lock *(u64 *)({counter} + 0) += {value}", counter = in(reg) counter, value = in(reg) value);
    }
}

/// Adds to one of overwatch's own counters.
#[inline(always)]
pub(crate) fn count(counter: Counter, value: u64) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // Atomic although per CPU: on a preemptible kernel another task may run the same program in between.
        add(slot, value);
    }
}

/// The running epoch. Read it only after the bytes were added: see `table::announce`.
#[inline(always)]
pub(crate) fn epoch() -> u32 {
    // SAFETY: the pointer is to a live value of the array; volatile because the user side writes it.
    CONTROL.get_ptr(EPOCH).map_or(0, |word| unsafe { core::ptr::read_volatile(word) })
}

/// Notes that LISTENERS has another entry, or one less. A time, since a number that two CPUs raise at once could change back.
#[inline(always)]
pub(crate) fn note_listeners_changed() {
    if let Some(word) = CONTROL.get_ptr_mut(LISTENERS_CHANGED) {
        // SAFETY: the pointer is to a live value of the array; the time has no arguments.
        unsafe { core::ptr::write_volatile(word, bpf_ktime_get_ns() as u32) };
    }
}

/// Notes that the connection table has been full.
#[inline(always)]
pub(crate) fn note_full() {
    if let Some(word) = CONTROL.get_ptr_mut(WAS_FULL) {
        // SAFETY: the pointer is to a live value of the array; all writers write the same.
        unsafe { core::ptr::write_volatile(word, 1) };
    }
}

/// True when the connection table has ever been full.
#[inline(always)]
pub(crate) fn was_full() -> bool {
    // SAFETY: as in `epoch`.
    CONTROL.get_ptr(WAS_FULL).is_some_and(|word| unsafe { core::ptr::read_volatile(word) } != 0)
}

/// True where the kernel has skipped programs, or may have.
#[inline(always)]
pub(crate) fn may_have_skipped() -> bool {
    // SAFETY: as in `epoch`.
    CONTROL.get_ptr(SKIPS).is_some_and(|word| unsafe { core::ptr::read_volatile(word) } != 0)
}

/// Number of the running audit, or of the last one.
#[inline(always)]
pub(crate) fn audit() -> u16 {
    // SAFETY: as in `epoch`.
    CONTROL.get_ptr(AUDIT).map_or(0, |word| unsafe { core::ptr::read_volatile(word) }) as u16
}
