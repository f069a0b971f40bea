//! Standard output on a thread of its own, so that a reader who stands still stops neither the drain nor a signal.

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use tokio::sync::mpsc as tokio_mpsc;

/// An output is written in pieces of so many bytes, to see whether its reader reads.
const PIECE: usize = 16 * 1024;

/// Where finished outputs go. One is written at a time; the next waits until it is through.
pub(super) struct Output {
    outputs: mpsc::Sender<Vec<u8>>,
    written: tokio_mpsc::UnboundedReceiver<io::Result<()>>,
    waiting: bool,
    pieces: Arc<AtomicU64>,
}

impl Output {
    /// Starts the thread. It ends with the program, also in the middle of a write that nobody reads.
    pub(super) fn start() -> Self {
        let (outputs, to_write) = mpsc::channel::<Vec<u8>>();
        let (done, written) = tokio_mpsc::unbounded_channel();
        let pieces = Arc::new(AtomicU64::new(0));
        let through = Arc::clone(&pieces);
        std::thread::spawn(move || {
            for output in to_write {
                let mut stdout = io::stdout().lock();
                let mut write = |piece: &[u8]| {
                    stdout.write_all(piece)?;
                    through.fetch_add(1, Ordering::Relaxed);
                    stdout.flush()
                };
                let result = output.chunks(PIECE).try_for_each(&mut write);
                let failed = result.is_err();
                if done.send(result).is_err() || failed {
                    break;
                }
            }
        });
        Self { outputs, written, waiting: false, pieces }
    }

    /// Hands an output over.
    pub(super) fn send(&mut self, output: Vec<u8>) -> io::Result<()> {
        self.waiting = true;
        self.outputs.send(output).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    /// How many pieces are through: it grows while somebody reads.
    pub(super) fn pieces(&self) -> u64 {
        self.pieces.load(Ordering::Relaxed)
    }

    /// True until the last output is through.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Waits for the last output to be through.
    pub(super) async fn written(&mut self) -> io::Result<()> {
        let result = self.written.recv().await;
        self.waiting = false;
        result.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))
    }
}
