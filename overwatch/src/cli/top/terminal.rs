//! The terminal: taken for the whole screen, and given back in whatever way the program ends.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crossterm::{
    cursor, event,
    event::Event,
    execute, queue,
    style::Print,
    terminal,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen},
};
use nix::{
    fcntl::OFlag,
    sys::termios::{FlushArg, tcflush},
};
use ratatui::{TerminalOptions, Viewport, backend::CrosstermBackend, layout::Rect};
use tokio::sync::mpsc;

/// Buttons and the wheel, in the form that knows no last column. Not every motion: it would be sent and drawn for nothing.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";

/// The terminal is ours. For the panic hook too, which has nothing else.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What was drawn and is not written yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Frames(Arc<Mutex<Vec<u8>>>);

impl Frames {
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The whole terminal.
pub(super) struct Terminal {
    pub(super) frames: Frames,
    pub(super) inner: ratatui::Terminal<CrosstermBackend<Frames>>,
}

impl Terminal {
    /// Takes it.
    pub(super) fn take() -> io::Result<Self> {
        restore_on_panic();
        let frames = Frames::default();
        let inner = fresh(&frames)?;
        let mut terminal = Self { frames, inner };
        terminal.resume()?;
        Ok(terminal)
    }

    /// Takes it again.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        terminal::enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        execute!(io::stdout(), EnterAlternateScreen, Print(MOUSE_ON), cursor::Hide)?;
        self.anew()
    }

    /// Everything is drawn anew, in the size that it has now.
    pub(super) fn anew(&mut self) -> io::Result<()> {
        self.inner = fresh(&self.frames)?;
        queue!(self.frames, terminal::Clear(terminal::ClearType::All))
    }
}

/// One that knows of nothing on it. Its own ways to clear and to follow another size ask where the cursor is, and the answer would come among
/// the keys.
fn fresh(frames: &Frames) -> io::Result<ratatui::Terminal<CrosstermBackend<Frames>>> {
    let (width, height) = terminal::size()?;
    let viewport = Viewport::Fixed(Rect::new(0, 0, width, height));
    ratatui::Terminal::with_options(CrosstermBackend::new(frames.clone()), TerminalOptions { viewport })
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives it back, if it was taken: as it was. It waits for nobody: a terminal that takes nothing may hold up who writes to standard output for
/// ever, so this goes another way, and drops what has not got through.
pub(super) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _gone = terminal::disable_raw_mode();
        let _gone = say_goodbye();
    }
}

fn say_goodbye() -> io::Result<()> {
    let mut goodbye = Vec::new();
    queue!(goodbye, Print(MOUSE_OFF), LeaveAlternateScreen, cursor::Show)?;
    // Opened anew: what is set on the descriptor that others have of it is theirs too.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let mut terminal = OpenOptions::new().write(true).custom_flags(flags.bits()).open("/proc/self/fd/1")?;
    if terminal.write(&goodbye).is_ok_and(|written| written == goodbye.len()) {
        return Ok(());
    }
    tcflush(&terminal, FlushArg::TCOFLUSH)?;
    terminal.write_all(&goodbye)
}

fn restore_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        give_back();
        before(panic);
    }));
}

/// What the terminal tells: keys, the mouse, another size. When the terminal goes, SIGHUP or the next picture tells, not this.
pub(super) fn events() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(64);
    // It waits in a system call and ends with the program.
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                break;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_says_anything() {
        static GIVEN_BACK_FIRST: AtomicBool = AtomicBool::new(false);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| GIVEN_BACK_FIRST.store(!TAKEN.load(Ordering::SeqCst), Ordering::SeqCst)));
        restore_on_panic();
        TAKEN.store(true, Ordering::SeqCst);
        let panicked = std::panic::catch_unwind(|| panic!("on purpose"));
        std::panic::set_hook(before);
        assert!(panicked.is_err() && GIVEN_BACK_FIRST.load(Ordering::SeqCst));
    }
}
