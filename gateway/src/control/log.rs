//! Logging to standard error, and the lines of refused connections.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::mpsc::Receiver;

use tracing_subscriber::EnvFilter;

use crate::shard::RefusalLine;

/// Starts logging. A filter that cannot be read is told and `info` is taken.
pub fn start(filter: Option<String>) {
    let filter = filter.or_else(|| std::env::var("RUST_LOG").ok()).unwrap_or_else(|| "info".to_owned());
    let parsed = EnvFilter::try_new(&filter);
    if let Err(error) = &parsed {
        eprintln!("moorgate: {filter:?} is no filter of the log ({error}); info is taken");
    }
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new("info"));
    // Tests start several gateways in one process: the first one's logging stays.
    let ansi = std::io::stderr().is_terminal();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .try_init();
}

/// Writes refusals until all shards are gone.
pub fn write_refusals(lines: &Receiver<RefusalLine>) {
    while let Ok(line) = lines.recv() {
        let peer = line.peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
        let (reason, first) = (line.reason.name(), bytes_as_text(&line.first));
        let suppressed = line.suppressed;
        tracing::info!(%peer, reason, first, suppressed, "refused: {}", line.text);
    }
}

/// Bytes as a person reads them: text where it is text, hex beside it.
fn bytes_as_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 4 + 4);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.push(' ');
    text.push_str(&bytes.escape_ascii().to_string());
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn first_bytes_are_shown_as_hex_and_text() {
        assert_eq!(super::bytes_as_text(b"GET\n"), "4745540a GET\\n");
    }
}
