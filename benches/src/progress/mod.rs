//! What a run shows while it lasts: a view of the whole terminal, or one line a second where there is none.

mod line;
mod tui;

use std::io::{self, IsTerminal, Write};

use crate::measure::Live;
use tui::Tui;

#[derive(Debug, Default)]
pub struct Progress {
    /// None: lines.
    tui: Option<Tui>,
    on_terminal: bool,
    is_open: bool,
}

impl Progress {
    /// Lines: written over on a terminal, one below the other elsewhere.
    pub fn new() -> Self {
        Self { tui: None, on_terminal: io::stderr().is_terminal(), is_open: false }
    }

    /// The view, where stdin and stderr are a terminal that can show it; else lines.
    pub fn view(title: &str, no_tui: bool) -> Self {
        let wanted = !no_tui && io::stderr().is_terminal() && io::stdin().is_terminal();
        Self { tui: if wanted { Tui::open(title).ok() } else { None }, ..Self::new() }
    }

    /// What goes on, outside a load.
    pub fn line(&mut self, text: &str) {
        if let Some(tui) = &mut self.tui {
            return tui.status(text);
        }
        let mut stderr = io::stderr().lock();
        // Nobody to tell is no reason to stop.
        let _ = if self.on_terminal {
            self.is_open = true;
            write!(stderr, "\r\x1b[2K{text}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{text}")
        };
    }

    /// What the last second of a load was.
    pub fn second(&mut self, live: &Live) {
        match &mut self.tui {
            Some(tui) => tui.second(live),
            None => self.line(&line::of(live)),
        }
    }

    /// A line that stays.
    pub fn say(&mut self, text: &str) {
        if let Some(tui) = &mut self.tui {
            return tui.say(text);
        }
        self.end();
        eprintln!("{text}");
    }

    /// The terminal is as it was; what was to stay is printed.
    pub fn end(&mut self) {
        if let Some(tui) = self.tui.take() {
            for text in tui.close() {
                eprintln!("{text}");
            }
        }
        if std::mem::take(&mut self.is_open) {
            eprintln!();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
