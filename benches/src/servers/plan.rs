//! Which cores the three parts of a run get.

use serde::Serialize;

/// Cores of each part; an empty list: not pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cores {
    pub gateway: Vec<usize>,
    pub backend: Vec<usize>,
    pub bench: Vec<usize>,
}

impl Cores {
    /// Apart where there are enough. On two the gateway has one for itself and the others share the second; on one
    /// nobody is pinned.
    pub fn plan(available: &[usize]) -> Self {
        match available {
            [] | [_] => Self::default(),
            [first, second] => Self { gateway: vec![*first], backend: vec![*second], bench: vec![*second] },
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
    fn the_gateway_is_apart_wherever_there_are_two() {
        assert_eq!(Cores::plan(&[3]), Cores::default());
        for count in 2..20 {
            let all: Vec<usize> = (0..count).collect();
            let plan = Cores::plan(&all);
            assert!(!plan.gateway.is_empty() && !plan.backend.is_empty() && !plan.bench.is_empty());
            assert!(
                plan.gateway.iter().all(|core| !plan.backend.contains(core) && !plan.bench.contains(core))
            );
            if count > 2 {
                assert!(plan.backend.iter().all(|core| !plan.bench.contains(core)));
            }
        }
    }
}
