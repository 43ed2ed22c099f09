//! Where the kernel's own workers may run.
//!
//! When a process with hundreds of thousands of connections is killed, unbound workers of the kernel close them, for
//! seconds and without a break (PREEMPT_NONE), on any core that they may use. Whatever shares that core waits: of 5 000
//! phones beside a kill of 200 000, p99 56-120 ms with the workers on their core and 5 ms without (Linux 6.18).

use std::fs;

use tuning::{Finding, Severity};

const MASK: &str = "/sys/devices/virtual/workqueue/cpumask";

/// What is to be told when the workers may use `spared`, the cores that shall not notice a kill.
pub fn finding(spared: &[usize]) -> Option<Finding> {
    find(fs::read_to_string(MASK).ok()?.trim(), spared)
}

fn find(mask: &str, spared: &[usize]) -> Option<Finding> {
    let mut words = words(mask)?;
    let bit = |core: usize| (core / 32, 1_u32 << (core % 32));
    let shared: Vec<usize> = spared
        .iter()
        .copied()
        .filter(|&core| words.get(bit(core).0).is_some_and(|word| word & bit(core).1 != 0))
        .collect();
    if shared.is_empty() {
        return None;
    }
    for &core in &shared {
        words[bit(core).0] &= !bit(core).1;
    }
    let mend = match words.iter().all(|&word| word == 0) {
        true => "a core more: the workers need one".to_owned(),
        false => format!("echo {} > {MASK}", text(&words)),
    };
    Some(Finding {
        severity: Severity::Warning,
        what: "the kernel's workers, which close what a killed gateway leaves, may run where the phones of the other are"
            .to_owned(),
        have: format!("workers on the cores of {mask}"),
        need: format!("none on {shared:?}"),
        mend,
    })
}

/// The words of a mask such as `ff,ffffffff`, the lowest first.
fn words(mask: &str) -> Option<Vec<u32>> {
    mask.rsplit(',').map(|word| u32::from_str_radix(word, 16).ok()).collect()
}

fn text(words: &[u32]) -> String {
    let all: Vec<String> = words.iter().rev().map(|word| format!("{word:08x}")).collect();
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_share_a_core_are_told_with_the_mask_that_mends_it() {
        let told = find("3", &[1]).expect("shared").to_string();
        assert!(told.contains("echo 00000001 > /sys") && told.contains("[1]"), "{told}");
        let told = find("1f,ffffffff", &[33, 40]).expect("shared").to_string();
        assert!(told.contains("echo 0000001d,ffffffff > /sys") && told.contains("none on [33]"), "{told}");
    }

    #[test]
    fn workers_that_are_apart_are_not_told_and_the_last_core_is_not_taken_from_them() {
        assert!(find("1", &[1]).is_none());
        assert!(find("3", &[]).is_none());
        assert!(find("no mask", &[0]).is_none());
        assert!(find("2", &[1]).expect("shared").mend.contains("a core more"));
    }
}
