//! What will not fit on this host, before anything is started: each with the command that mends it.

use std::net::SocketAddr;

use tuning::{Host, Need, Role, Severity};

use crate::sources::Sources;

/// Checks for `connections` of which the bench holds one end, or both with `spawn`. Prints what is found; an error is
/// what cannot work.
pub fn check(
    connections: u32,
    spawn: bool,
    target: SocketAddr,
    sources: &Sources,
) -> Result<Vec<String>, String> {
    if let Some(told) = sources.trouble(target) {
        return Err(told);
    }
    let findings = find(&Host::read(), connections, spawn, target, sources);
    let fatal = findings.iter().any(|finding| finding.0 == Severity::Fatal);
    let told: Vec<String> = findings.iter().map(|finding| finding.1.clone()).collect();
    if fatal {
        return Err(told.join("\n"));
    }
    for (_, text) in findings.iter().filter(|finding| finding.0 >= Severity::Warning) {
        eprintln!("{text}");
    }
    Ok(told)
}

fn find(
    host: &Host,
    connections: u32,
    spawn: bool,
    target: SocketAddr,
    sources: &Sources,
) -> Vec<(Severity, String)> {
    // Servers of this machine that are not the bench's own share it all the same, but their need is theirs to tell.
    let role = if spawn { Role::Both } else { Role::Bench };
    let addresses = u64::from(connections.div_ceil(crate::limits::CONNECTIONS_OF_AN_ADDRESS));
    let used = addresses.clamp(1, sources.count(target)) as u32;
    let need = Need { source_addresses: used, ..Need::new(role, u64::from(connections)) };
    let mut findings: Vec<_> = tuning::check(host, &need)
        .into_iter()
        .map(|finding| (finding.severity, finding.to_string()))
        .collect();
    if host.cores == Some(1) {
        let text = "note: one core: the bench and what it measures take it from each other\n  have: 1 core; need: 2\n  \
                    mend: run the bench on another machine, with --target";
        findings.push((Severity::Note, text.to_owned()));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(connections: u32, target: &str, sources: &Sources) -> Vec<(Severity, String)> {
        find(&Host::read(), connections, false, target.parse().expect("an address"), sources)
    }

    #[test]
    fn too_many_connections_for_the_ports_is_said_with_what_mends_it() {
        let few = Sources::parse("127.2.0.1,127.2.0.2").expect("a list");
        let findings = told(200_000, "127.0.0.1:7600", &few);
        let ports = findings.iter().find(|finding| finding.1.contains("local ports")).expect("found");
        assert_eq!(ports.0, Severity::Fatal, "{}", ports.1);
        assert!(ports.1.contains("mend: ") && ports.1.contains("source addresses"), "{}", ports.1);
        let away = told(200_000, "192.0.2.1:7600", &Sources::default());
        assert!(away.iter().any(|finding| finding.0 == Severity::Fatal && finding.1.contains("local ports")));
        let here = told(20_000, "127.0.0.1:7600", &Sources::default());
        assert!(!here.iter().any(|finding| finding.1.contains("local ports")), "{here:?}");
    }

    #[test]
    fn a_source_that_is_not_here_ends_it_before_the_run() {
        let sources = Sources::parse("203.0.113.7").expect("an address");
        let target = "127.0.0.1:7600".parse().expect("an address");
        assert!(check(1, false, target, &sources).expect_err("not here").contains("ip address add"));
    }
}
