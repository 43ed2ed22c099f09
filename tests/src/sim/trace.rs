//! What happened: a hash over all of it, the last lines of it, and all lines when asked for.

use std::collections::VecDeque;
use std::fmt;

use super::limits;

/// The record of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    last: VecDeque<Line>,
    prints: bool,
}

#[derive(Debug)]
struct Line {
    at_us: u64,
    text: Text,
}

#[derive(Debug)]
enum Text {
    /// `{a}`, `{b}` and `{c}` stand for the numbers: written out only when somebody reads it.
    Template(&'static str, [u64; 3]),
    Words(String),
}

impl Trace {
    pub fn new(prints: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, last: VecDeque::new(), prints }
    }

    /// Two runs with the same hash did the same.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn note(&mut self, at_us: u64, template: &'static str, numbers: [u64; 3]) {
        self.mix(template.as_bytes());
        self.keep(Line { at_us, text: Text::Template(template, numbers) });
        for number in [at_us].into_iter().chain(numbers) {
            self.mix(&number.to_le_bytes());
        }
    }

    pub fn say(&mut self, at_us: u64, words: String) {
        self.mix(words.as_bytes());
        self.keep(Line { at_us, text: Text::Words(words) });
    }

    /// What is too much for a line counts for the hash.
    pub fn mix(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let mixed = (self.hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.hash = mixed ^ (mixed >> 32);
        }
    }

    /// The last lines, oldest first.
    pub fn last(&self) -> Vec<String> {
        self.last.iter().map(ToString::to_string).collect()
    }

    fn keep(&mut self, line: Line) {
        if self.prints {
            println!("{line}");
        }
        if self.last.len() == limits::LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5}.{:06} ", self.at_us / 1_000_000, self.at_us % 1_000_000)?;
        match &self.text {
            Text::Words(words) => f.write_str(words),
            Text::Template(template, [a, b, c]) => {
                let text = template.replace("{a}", &a.to_string()).replace("{b}", &b.to_string());
                f.write_str(&text.replace("{c}", &c.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_knows_order_and_numbers_and_the_last_lines_are_kept() {
        let run = |numbers: &[u64]| {
            let mut trace = Trace::new(false);
            for &number in numbers {
                trace.note(number, "phone {a} of {b}", [number, 7, 0]);
            }
            trace
        };
        assert_eq!(run(&[1, 2]).hash(), run(&[1, 2]).hash());
        assert_ne!(run(&[1, 2]).hash(), run(&[2, 1]).hash());
        let many: Vec<u64> = (0..200).collect();
        let last = run(&many).last();
        assert_eq!(last.len(), limits::LAST_LINES);
        assert!(last[limits::LAST_LINES - 1].ends_with("phone 199 of 7"), "{last:?}");
    }
}
