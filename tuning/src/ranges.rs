//! Values of a configuration that are out of range: what is wrong, and on which line of the file.

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}, but it must be {must}")]
pub struct RangeError {
    /// The key with the sections before it: `limits.heartbeat_ms`.
    pub key: &'static str,
    pub value: String,
    pub must: String,
}

pub fn in_range(key: &'static str, value: u64, least: u64, most: u64) -> Result<(), RangeError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(RangeError { key, value: value.to_string(), must: format!("from {least} to {most}") })
}

/// The line of a TOML file, from 1, that sets a key. `None`: it stands there in a way that is not looked for (a
/// dotted key, an inline table), or the value is the default.
pub fn line_of_key(toml: &str, key: &str) -> Option<usize> {
    let (wanted_section, wanted) = key.rsplit_once('.').unwrap_or(("", key));
    let mut section = "";
    for (index, line) in toml.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = name.trim();
        } else if section == wanted_section
            && line.split_once('=').is_some_and(|(name, _)| name.trim() == wanted)
        {
            return Some(index + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_its_own_section() {
        let text = "a = 1\n# b = 2\n[one]\nb = 3\n\n[two] # here\n  b = 4\n";
        assert_eq!(line_of_key(text, "a"), Some(1));
        assert_eq!(line_of_key(text, "one.b"), Some(4));
        assert_eq!(line_of_key(text, "two.b"), Some(7));
        assert_eq!(line_of_key(text, "b"), None);
    }

    #[test]
    fn what_is_out_of_range_says_so() {
        assert_eq!(in_range("x", 3, 1, 3), Ok(()));
        let error = in_range("one.x", 4, 1, 3).expect_err("out of range");
        assert_eq!(error.to_string(), "one.x is 4, but it must be from 1 to 3");
    }
}
