//! What will not fit on this host, before anything is started.

use tuning::{Host, Need, Role, Severity};

/// Checks for `connections` of which the bench holds one end, or both with `spawn`. Prints what is found; an error is
/// what cannot work.
pub fn check(connections: u32, spawn: bool) -> Result<Vec<String>, String> {
    let role = if spawn { Role::Both } else { Role::Bench };
    let addresses = connections.div_ceil(crate::limits::CONNECTIONS_OF_AN_ADDRESS);
    let need = Need {
        source_addresses: addresses.clamp(1, crate::limits::SOURCE_ADDRESSES_MAX),
        ..Need::new(role, u64::from(connections))
    };
    let findings = tuning::check(&Host::read(), &need);
    let fatal = findings.iter().any(|finding| finding.severity == Severity::Fatal);
    let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
    if fatal {
        return Err(told.join("\n"));
    }
    for finding in findings.iter().filter(|finding| finding.severity >= Severity::Warning) {
        eprintln!("{finding}");
    }
    Ok(told)
}
