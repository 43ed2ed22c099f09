//! The figures of reports that two runs are compared by.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    Lower,
    Higher,
}

#[derive(Debug)]
pub(super) struct Metric {
    pub name: &'static str,
    pub key: &'static str,
    pub better: Better,
    /// Differences up to this share are the same: what a machine at rest gives from day to day.
    pub tolerance: f64,
}

impl Metric {
    /// With one report a side: what a busy machine gives from run to run.
    pub fn tolerance_alone(&self) -> f64 {
        (self.tolerance * 5.0).max(0.25)
    }
}

const fn lower(name: &'static str, key: &'static str, tolerance: f64) -> Metric {
    Metric { name, key, better: Better::Lower, tolerance }
}

const fn higher(name: &'static str, key: &'static str, tolerance: f64) -> Metric {
    Metric { name, key, better: Better::Higher, tolerance }
}

pub(super) const METRICS: &[Metric] = &[
    higher("calls a second", "calls_per_second", 0.03),
    higher("acknowledged a second", "acknowledged_per_second", 0.03),
    higher("highest rate", "highest_rate", 0.05),
    higher("set up a second", "setup.per_second", 0.1),
    higher("connections held", "connections.held", 0.0001),
    lower("latency p50, ms", "latency_ms.p50", 0.05),
    lower("latency p99, ms", "latency_ms.p99", 0.1),
    lower("latency p99.9, ms", "latency_ms.p999", 0.2),
    lower("acknowledged p50, ms", "latency_ms.ack.p50", 0.05),
    lower("acknowledged p99, ms", "latency_ms.ack.p99", 0.1),
    lower("delivered p50, ms", "latency_ms.deliver.p50", 0.05),
    lower("delivered p99, ms", "latency_ms.deliver.p99", 0.1),
    lower("gateway's CPU a call, us", "server.gateway.cpu_us_per_call", 0.05),
    lower("backend's CPU a call, us", "server.backend.cpu_us_per_call", 0.05),
    lower("gateway's CPU a message, us", "server.gateway.cpu_us_per_message", 0.05),
    lower("backend's CPU a message, us", "server.backend.cpu_us_per_message", 0.05),
    lower("gateway's CPU a heartbeat, us", "server.cpu_us_per_heartbeat", 0.05),
    lower("gateway's memory, B", "server.gateway.rss_bytes", 0.05),
    lower("user memory a connection, B", "server.user_bytes_per_connection", 0.02),
    lower("kernel memory a connection, B", "server.kernel_bytes_per_connection", 0.1),
    lower("broadcast, s", "broadcast.seconds", 0.1),
    lower("broadcast's CPU a phone, us", "broadcast.cpu_us_per_phone", 0.05),
    lower("storm: seconds to all", "storm.seconds_to_all", 0.1),
    lower("growth of memory, B an hour", "leak.bytes_per_hour", 0.5),
];
