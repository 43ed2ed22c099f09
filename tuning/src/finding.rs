//! What a check found, and how it reads.

use std::fmt;

/// How bad it is. Ordered: `Fatal` is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works; it is good to know.
    Note,
    /// It works until load or bad luck comes.
    Warning,
    /// It will not fit.
    Fatal,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Fatal => "will not fit",
        })
    }
}

/// One thing that does not fit, or only just.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// What it is about, and what happens.
    pub what: String,
    pub have: String,
    pub need: String,
    /// The command that mends it, or what to do where no command does.
    pub mend: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}\n  have: {}; need: {}\n  mend: {}",
            self.severity, self.what, self.have, self.need, self.mend
        )
    }
}

/// A count with its thousands apart: `1 002 400`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the unit that a person would use.
pub(crate) fn bytes(n: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    match n {
        GIB.. => format!("{:.1} GiB", n as f64 / GIB as f64),
        MIB.. => format!("{:.1} MiB", n as f64 / MIB as f64),
        KIB.. => format!("{:.1} KiB", n as f64 / KIB as f64),
        _ => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_002_400), "1 002 400");
        assert_eq!(bytes(96), "96 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(7_800 * 100_000), "743.9 MiB");
        assert_eq!(bytes(24 << 30), "24.0 GiB");
    }

    #[test]
    fn a_finding_says_all_four() {
        let finding = Finding {
            severity: Severity::Fatal,
            what: "memory".into(),
            have: "1 GiB".into(),
            need: "2 GiB".into(),
            mend: "hold fewer".into(),
        };
        assert_eq!(
            finding.to_string(),
            "will not fit: memory\n  have: 1 GiB; need: 2 GiB\n  mend: hold fewer"
        );
        assert!(Severity::Fatal > Severity::Warning && Severity::Warning > Severity::Note);
    }
}
