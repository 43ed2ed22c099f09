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

#[cfg(test)]
mod tests {
    use super::*;

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
