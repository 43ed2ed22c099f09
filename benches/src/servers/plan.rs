//! Which cores the three parts of a run get.

use serde::Serialize;

/// Cores of each part; an empty list: not pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cores {
    pub gateway: Vec<usize>,
    pub backend: Vec<usize>,
    pub bench: Vec<usize>,
}

impl Cores {
    /// Apart where there are enough. On two the gateway is pinned to one, and the others go where there is room: pinned
    /// to the second they wait for each other while the first idles (8 000 messages a second: p99 to the delivery
    /// 1 361 ms pinned, 53 ms not). On one core nobody is pinned.
    pub fn plan(available: &[usize]) -> Self {
        match available {
            [] | [_] => Self::default(),
            [first, _] => Self { gateway: vec![*first], ..Self::default() },
            [first, second, third] => {
                Self { gateway: vec![*first], backend: vec![*second], bench: vec![*third] }
            }
            all => {
                let quarter = all.len() / 4;
                Self {
                    gateway: all[..quarter].to_vec(),
                    backend: all[quarter..2 * quarter].to_vec(),
                    bench: all[2 * quarter..].to_vec(),
                }
            }
        }
    }
}

/// The cores of a storm: what is cut, and beside it what must not notice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StormCores {
    /// The gateway that is killed, the backend of both gateways, and the phones that are cut.
    pub stormed: Cores,
    /// The other gateway and its phones.
    pub healthy: Vec<usize>,
}

impl StormCores {
    /// The healthy share nothing with the storm but the backend, which answers their calls: where cores are few it runs
    /// beside them, since the storm has its own core full and would hold up every answer. Where there are four, all are
    /// apart. On one core nobody is pinned.
    pub fn plan(available: &[usize]) -> Self {
        let cores = |gateway: &[usize], backend: &[usize], bench: &[usize]| Cores {
            gateway: gateway.to_vec(),
            backend: backend.to_vec(),
            bench: bench.to_vec(),
        };
        match available {
            [] | [_] => Self::default(),
            [first, second] => {
                Self { stormed: cores(&[*first], &[*second], &[*first]), healthy: vec![*second] }
            }
            [first, second, third] => {
                Self { stormed: cores(&[*first], &[*third], &[*first]), healthy: vec![*second] }
            }
            all => {
                let quarter = all.len() / 4;
                let stormed = cores(&all[..quarter], &all[quarter..2 * quarter], &all[2 * quarter + 1..]);
                Self { stormed, healthy: vec![all[2 * quarter]] }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_healthy_share_no_core_with_the_storm() {
        assert_eq!(StormCores::plan(&[3]), StormCores::default());
        for count in 2..20 {
            let all: Vec<usize> = (5..5 + count).collect();
            let StormCores { stormed, healthy } = StormCores::plan(&all);
            let apart = |cores: &[usize]| cores.iter().all(|core| !healthy.contains(core));
            assert!(apart(&stormed.gateway) && apart(&stormed.bench), "{count}: {stormed:?} {healthy:?}");
            assert!(
                apart(&stormed.backend) == (count > 2),
                "{count}: the backend is beside them on two only"
            );
            let used = [&stormed.gateway, &stormed.backend, &stormed.bench, &healthy];
            assert!(used.iter().all(|cores| !cores.is_empty()));
            assert!(used.into_iter().flatten().all(|core| all.contains(core)));
        }
    }

    #[test]
    fn the_parts_are_apart_where_there_are_three() {
        assert_eq!(Cores::plan(&[3]), Cores::default());
        assert_eq!(Cores::plan(&[0, 1]), Cores { gateway: vec![0], ..Cores::default() });
        for count in 3..20 {
            let all: Vec<usize> = (0..count).collect();
            let plan = Cores::plan(&all);
            let mut used = [plan.gateway, plan.backend, plan.bench].concat();
            assert!(used.len() >= 3);
            used.sort_unstable();
            used.dedup();
            assert!(used.len() == count || count == 3, "{used:?} of {count}");
        }
    }
}
