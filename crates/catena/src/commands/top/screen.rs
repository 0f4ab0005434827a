//! The terminal, as long as it is ours: everything on it is drawn anew each time, and it is given back as it was.

use std::io::{self, Stdout, Write, stdout};

use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap, EndSynchronizedUpdate,
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute, queue, style};

/// Lines that are too long are cut off by the terminal.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub rows: u16,
}

/// Gives the terminal back when it is dropped.
pub struct Screen {
    out: Stdout,
    colours: bool,
}

impl Screen {
    pub fn enter() -> io::Result<Self> {
        let colours = anstream::AutoStream::choice(&stdout()) != anstream::ColorChoice::Never;
        enable_raw_mode()?;
        // From here on, it is given back also if this fails.
        let mut screen = Self { out: stdout(), colours };
        execute!(screen.out, EnterAlternateScreen, DisableLineWrap, cursor::Hide)?;
        Ok(screen)
    }

    /// Draws the lines that `page` makes for the present size.
    pub fn draw(&mut self, page: impl FnOnce(Size) -> Vec<String>) -> io::Result<()> {
        let (_, rows) = crossterm::terminal::size()?;
        queue!(self.out, BeginSynchronizedUpdate, cursor::MoveTo(0, 0))?;
        for (number, line) in page(Size { rows }).iter().enumerate() {
            let line = match self.colours {
                true => line.clone(),
                false => anstream::adapter::strip_str(line).to_string(),
            };
            if number > 0 {
                queue!(self.out, style::Print("\r\n"))?;
            }
            queue!(self.out, style::Print(line), Clear(ClearType::UntilNewLine))?;
        }
        queue!(self.out, Clear(ClearType::FromCursorDown), EndSynchronizedUpdate)?;
        self.out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell if it fails.
        let _ = execute!(self.out, cursor::Show, EnableLineWrap, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}
