//! Accept: the moment when a connection that a client opened gets its owner.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fexit, kretprobe, tracepoint},
    programs::{FExitContext, RetProbeContext, TracePointContext},
};
use overwatch_common::connection::role;

use crate::{
    kernel::{self, Address, argument, follow, read},
    maps::CONNECTIONS,
    table,
};

/// The child's entry belongs to the process that accepts, until another one moves bytes over it.
#[inline(always)]
fn accepted(sock: Address) {
    if sock == 0 || !table::is_tcp(sock) {
        return;
    }
    if let Some(earlier) = CONNECTIONS.get_ptr_mut(sock) {
        // SAFETY: the pointer is from the lookup.
        let port = unsafe { (*earlier).remote_port };
        let same: u16 = u16::from_be(read(sock, kernel::SOCK_REMOTE_PORT.load()));
        if port == same {
            // The seed or the first call on it was faster.
            return;
        }
        // Left behind by a socket whose end we did not see.
        table::finish(sock, earlier);
    }
    table::create(sock, role::SERVER, 0, 0, None);
}

/// fexit of `struct sock *inet_csk_accept(struct sock *sk, ...)`
#[fexit(function = "inet_csk_accept")]
pub(crate) fn accept_exit(context: FExitContext) -> i32 {
    accepted(argument(context.as_ptr(), &kernel::ACCEPT_RETURN));
    0
}

/// kretprobe of inet_csk_accept
#[kretprobe]
pub(crate) fn accept_return(context: RetProbeContext) -> u32 {
    accepted(context.ret::<u64>());
    0
}

/// tracepoints syscalls/sys_exit_accept and sys_exit_accept4, where the other tiers are not to be had
#[tracepoint]
pub(crate) fn accept_syscall(context: TracePointContext) -> u32 {
    // SAFETY: BTF told where the result stands in the record; the verifier checks the bound.
    let result: i64 = unsafe { context.read_at(kernel::SYSCALL_EXIT_RET.load() as usize) }.unwrap_or(-1);
    if result >= 0
        && let Some(sock) = socket_of(result as u64)
    {
        accepted(sock);
    }
    0
}

/// From a file descriptor of the current process to its TCP socket.
#[inline(always)]
fn socket_of(descriptor: u64) -> Option<Address> {
    // SAFETY: no arguments; gives the address of the current task.
    let task = unsafe { aya_ebpf::helpers::generated::bpf_get_current_task() };
    let files = follow(task, kernel::TASK_FILES.load())?;
    let table = follow(files, kernel::FILES_FDT.load())?;
    let limit: u32 = read(table, kernel::FDTABLE_MAX_FDS.load());
    if descriptor >= u64::from(limit) {
        return None;
    }
    let array = follow(table, kernel::FDTABLE_FD.load())?;
    let file = follow(array + descriptor * 8, 0)?;
    let socket = follow(file, kernel::FILE_PRIVATE_DATA.load())?;
    // Another thread may have closed the descriptor and opened something else: only a socket points back to its file.
    (follow(socket, kernel::SOCKET_FILE.load())? == file).then_some(())?;
    follow(socket, kernel::SOCKET_SK.load())
}
