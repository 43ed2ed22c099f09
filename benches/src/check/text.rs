//! What a message of the bench says: which run, who, which message, and when it should have begun.

/// The front of a text. The rest is filling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    /// Tells the messages of this run from others.
    pub run: u32,
    pub sender: u32,
    /// Counts all messages of the run.
    pub id: u32,
    pub intended_us: u64,
}

const MARK: &str = "mb1";

impl Text {
    /// The text, filled up to `bytes`.
    pub fn write(&self, bytes: usize) -> String {
        use std::fmt::Write;
        let mut text = String::with_capacity(bytes.max(64));
        write!(text, "{MARK} {:x} {:x} {:x} {:x} ", self.run, self.sender, self.id, self.intended_us)
            .expect("a String grows");
        while text.len() < bytes {
            text.push_str("....".get(..(bytes - text.len()).min(4)).unwrap_or("."));
        }
        text
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next() != Some(MARK) {
            return None;
        }
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        let mut small = || u32::try_from(number()?).ok();
        let (run, sender, id) = (small()?, small()?, small()?);
        Some(Self { run, sender, id, intended_us: number()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(run: u32, sender: u32, id: u32, intended_us: u64, bytes in 0usize..300) {
            let text = Text { run, sender, id, intended_us };
            let written = text.write(bytes);
            prop_assert!(written.len() >= bytes);
            prop_assert_eq!(Text::parse(&written), Some(text));
        }
    }

    #[test]
    fn other_texts_are_no_such_text() {
        for text in ["", "hello", "mb1", "mb1 1 2", "mb1 1 2 zz 4 ", "mb2 1 2 3 4 "] {
            assert_eq!(Text::parse(text), None, "{text:?}");
        }
    }
}
