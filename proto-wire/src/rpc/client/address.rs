//! Where a callee is, and lists of them.

use core::net::SocketAddr;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

use super::limits;

/// Where a callee listens. Names are not resolved: a list holds addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// `127.0.0.1:7610`, `[::1]:7610`.
    Inet(SocketAddr),
    /// `unix:/run/echo.sock`.
    Unix(PathBuf),
}

/// Why a text is no address, or a list none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    #[error("{0:?} is neither an address and a port, such as 127.0.0.1:7610, nor unix: and a path")]
    Malformed(String),
    #[error("line {line}: {cause}")]
    Line { line: usize, cause: Box<AddressError> },
    #[error("{0} stands there twice")]
    Twice(Address),
    #[error("more than {max} endpoints", max = limits::MAX_ENDPOINTS)]
    TooMany,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(text.to_owned());
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() && !path.contains('\0') => Ok(Self::Unix(path.into())),
            Some(_) => Err(malformed()),
            None => text.parse().map(Self::Inet).map_err(|_| malformed()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Inet(addr)
    }
}

/// A list as it stands in a file: an address a line; what follows a `#` is for people.
pub fn parse_list(text: &str) -> Result<Vec<Address>, AddressError> {
    let mut all = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let at = |cause| AddressError::Line { line, cause: Box::new(cause) };
        let address = text.parse().map_err(at)?;
        add(&mut all, address).map_err(at)?;
    }
    Ok(all)
}

/// Whether a list that was made otherwise is one.
pub fn check_list(list: &[Address]) -> Result<(), AddressError> {
    list.iter().try_fold(Vec::new(), |mut seen, address| add(&mut seen, address.clone()).map(|()| seen))?;
    Ok(())
}

fn add(all: &mut Vec<Address>, address: Address) -> Result<(), AddressError> {
    if all.contains(&address) {
        return Err(AddressError::Twice(address));
    }
    if all.len() == limits::MAX_ENDPOINTS {
        return Err(AddressError::TooMany);
    }
    all.push(address);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_is_written() {
        for text in ["127.0.0.1:7610", "[::1]:7610", "unix:/run/echo.sock"] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "localhost:80", "127.0.0.1", "127.0.0.1:70000", "unix:", "unix:a\0b"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError::Malformed(text.to_owned())));
        }
    }

    #[test]
    fn a_list_says_which_line_is_wrong() {
        let text = "# echo\n127.0.0.1:1\n\n  unix:/a  # the near one\n";
        let list = parse_list(text).expect("a list");
        assert_eq!(list.iter().map(Address::to_string).collect::<Vec<_>>(), ["127.0.0.1:1", "unix:/a"]);
        let wrong = parse_list("127.0.0.1:1\nhere\n").expect_err("no address");
        assert!(wrong.to_string().starts_with("line 2: \"here\" is neither"), "{wrong}");
        let twice = parse_list("127.0.0.1:1\n127.0.0.1:1\n").expect_err("twice");
        assert_eq!(twice.to_string(), "line 2: 127.0.0.1:1 stands there twice");
        let many: String = (0..=limits::MAX_ENDPOINTS).map(|n| format!("127.0.0.1:{}\n", n + 1)).collect();
        assert!(matches!(parse_list(&many), Err(AddressError::Line { line: 257, .. })));
        assert!(parse_list("").is_ok_and(|list| list.is_empty()));
    }
}
