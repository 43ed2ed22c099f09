//! The lines that a person types: at a terminal with history and completion of verbs and names, else as they come.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, ExternalPrinter, Helper};

use super::Input;
use super::command::{Command, VERBS};
use crate::limits;

/// Names that can be completed; the phone adds those that it meets.
#[derive(Debug, Clone, Default)]
pub struct Known(Arc<Mutex<BTreeSet<String>>>);

impl Known {
    pub fn add(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !name.is_empty()
            && !name.contains(char::is_whitespace)
            && names.len() < limits::NAMES_COMPLETED_MAX
        {
            names.insert(name.to_owned());
        }
    }

    /// What the word before the cursor may become, and where it begins: the first is a verb, the others are names.
    fn complete(&self, line: &str) -> (usize, Vec<String>) {
        let start = line.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let word = &line[start..];
        let finished = |name: &str| format!("{name} ");
        if line[..start].trim().is_empty() {
            let verbs = VERBS.iter().map(|verb| verb.name).filter(|name| name.starts_with(word));
            return (start, verbs.map(finished).collect());
        }
        // Who is not to see a moment is written with a - before the name.
        let (start, word) = word.strip_prefix('-').map_or((start, word), |name| (start + 1, name));
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (start, names.iter().filter(|name| name.starts_with(word)).map(|name| finished(name)).collect())
    }
}

/// Where the phone's own lines go: above what is being typed.
pub enum Screen {
    Plain,
    Prompt(Box<dyn ExternalPrinter + Send>),
}

impl Screen {
    pub fn say(&mut self, text: &str) {
        match self {
            Screen::Prompt(printer) => {
                if printer.print(format!("{text}\n")).is_ok() {
                    return;
                }
                *self = Screen::Plain;
                self.say(text);
            }
            Screen::Plain => {
                let mut stdout = io::stdout().lock();
                // Nobody to tell: the next read of the input ends the phone.
                let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
            }
        }
    }
}

/// Reads what is typed on a thread of its own; the full channel holds it back.
pub fn read_lines(sender: SyncSender<Input>, known: &Known) -> Screen {
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        if let Some(screen) = read_at_a_terminal(&sender, known) {
            return screen;
        }
    }
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.send(Input::Line(line)).is_err() {
                return;
            }
        }
        let _ = sender.send(Input::End);
    });
    Screen::Plain
}

/// None: this terminal cannot do it.
fn read_at_a_terminal(sender: &SyncSender<Input>, known: &Known) -> Option<Screen> {
    let config = Config::builder().max_history_size(limits::HISTORY_LINES_MAX).ok()?.build();
    let mut editor: Editor<Known, DefaultHistory> = Editor::with_config(config).ok()?;
    editor.set_helper(Some(known.clone()));
    let printer = editor.create_external_printer().ok()?;
    let history = history_file();
    if let Some(path) = &history {
        // There is none before the first time.
        let _ = editor.load_history(path);
    }
    let sender = sender.clone();
    thread::spawn(move || {
        loop {
            match editor.readline("> ") {
                Ok(line) => {
                    let _ = editor.add_history_entry(line.as_str());
                    if let Some(path) = &history {
                        // Without it the history lasts as long as the phone.
                        let _ = editor.append_history(path);
                    }
                    // Nothing is read after it: the terminal would be left as the prompt needs it.
                    let is_last = matches!(Command::parse(&line), Ok(Some(Command::Quit)));
                    if sender.send(Input::Line(line)).is_err() || is_last {
                        return;
                    }
                }
                Err(ReadlineError::Signal(_)) => {}
                Err(_) => break,
            }
        }
        let _ = sender.send(Input::End);
    });
    Some(Screen::Prompt(Box::new(printer)))
}

/// Beside the state of other programs of this user.
fn history_file() -> Option<PathBuf> {
    let state = match std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".local/state"),
    };
    let dir = state.join("moorgate");
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir.join("phone-history"))
}

impl Completer for Known {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(Known::complete(self, &line[..at]))
    }
}

impl Hinter for Known {
    type Hint = String;
}

impl Highlighter for Known {}
impl Validator for Known {}
impl Helper for Known {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_and_names_are_completed() {
        let known = Known::default();
        for name in ["bob", "bobby", "carol", "two words"] {
            known.add(name);
        }
        let all = |names: &[&str]| names.iter().map(|name| format!("{name} ")).collect::<Vec<_>>();
        assert_eq!(known.complete("se"), (0, all(&["send", "set"])));
        assert_eq!(known.complete("send bo"), (5, all(&["bob", "bobby"])));
        assert_eq!(known.complete("group trip bob c"), (15, all(&["carol"])));
        assert_eq!(known.complete("post -ca"), (6, all(&["carol"])));
        assert_eq!(known.complete("send x").1, Vec::<String>::new());
        assert_eq!(known.complete("").1.len(), VERBS.len());
    }
}
