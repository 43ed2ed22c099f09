//! The policy, step by step and over random lives.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn addresses(count: usize) -> Vec<Address> {
    (1..=count).map(|port| format!("127.0.0.1:{port}").parse().expect("an address")).collect()
}

fn policy(balance: Balance, count: usize) -> Policy {
    let mut policy = Policy::new(PolicyConfig { balance, ..PolicyConfig::default() }, 7);
    policy.set_endpoints(&addresses(count), 0);
    policy
}

/// Makes one call that ends well, and gives where it went.
fn call(policy: &mut Policy, key: Option<u64>, now_ms: u64) -> u32 {
    let mut course = policy.begin(key, false, now_ms + 1000);
    let id = policy.pick(&mut course, now_ms).expect("endpoints");
    assert_eq!(policy.end(&mut course, id, Ok(()), 0, now_ms), Next::Over);
    id
}

fn homes(policy: &mut Policy, keys: u64, now_ms: u64) -> Vec<u32> {
    (0..keys).map(|key| call(policy, Some(key), now_ms)).collect()
}

#[test]
fn a_round_takes_each_in_turn() {
    let mut policy = policy(Balance::RoundRobin, 3);
    let ids: Vec<u32> = (0..6).map(|_| call(&mut policy, None, 0)).collect();
    assert_eq!(ids, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn the_less_loaded_of_two_gets_the_call() {
    let mut policy = policy(Balance::LeastOfTwo, 2);
    let mut course = policy.begin(None, false, 1000);
    let busy = policy.pick(&mut course, 0).expect("endpoints");
    for _ in 0..50 {
        assert_ne!(call(&mut policy, None, 0), busy);
    }
    policy.abandon(busy);
    assert_eq!(policy.in_flight(busy), 0);
}

#[test]
fn loads_stay_close_when_calls_do_not_end() {
    let mut policy = policy(Balance::LeastOfTwo, 8);
    for _ in 0..8000 {
        let mut course = policy.begin(None, false, 1000);
        policy.pick(&mut course, 0).expect("endpoints");
    }
    let loads: Vec<u32> = (0..8).map(|id| policy.in_flight(id)).collect();
    assert_eq!(loads.iter().sum::<u32>(), 8000);
    assert!(loads.iter().all(|load| load.abs_diff(1000) < 10), "{loads:?}");
}

#[test]
fn keys_stay_where_they_are_when_others_come_and_go() {
    let mut policy = policy(Balance::Key, 10);
    let before = homes(&mut policy, 10_000, 0);
    for id in 0..10 {
        let share = before.iter().filter(|home| **home == id).count();
        assert!(share.abs_diff(1000) < 150, "{id} has {share}");
    }
    // One goes: only its keys move. It comes back under another id: they return to it.
    let fewer: Vec<Address> = addresses(10).into_iter().filter(|a| a.to_string() != "127.0.0.1:4").collect();
    assert_eq!(policy.set_endpoints(&fewer, 0).removed, [3]);
    let between = homes(&mut policy, 10_000, 0);
    for (before, between) in before.iter().zip(&between) {
        assert!(if *before == 3 { *between != 3 } else { before == between });
    }
    let changes = policy.set_endpoints(&addresses(10), 0);
    assert_eq!((changes.added.len(), changes.removed.len(), changes.added[0].0), (1, 0, 10));
    let after = homes(&mut policy, 10_000, 20_000);
    assert!(before.iter().zip(&after).all(|(before, after)| if *before == 3 {
        *after == 10
    } else {
        before == after
    }));
}

#[test]
fn another_client_agrees_where_a_key_belongs() {
    let (mut one, mut other) = (
        policy(Balance::Key, 5),
        Policy::new(PolicyConfig { balance: Balance::Key, ..PolicyConfig::default() }, 99),
    );
    let backwards: Vec<Address> = addresses(5).into_iter().rev().collect();
    other.set_endpoints(&backwards, 0);
    for key in 0..1000 {
        assert_eq!(call(&mut one, Some(key), 0), 4 - call(&mut other, Some(key), 0));
    }
}

#[test]
fn one_that_comes_back_gets_its_keys_bit_by_bit_and_never_moves_one_twice() {
    let mut policy = policy(Balance::Key, 4);
    let home = homes(&mut policy, 4000, 0);
    policy.handle_down(2);
    assert!(homes(&mut policy, 4000, 0).iter().all(|id| *id != 2));
    policy.handle_up(2, 1000);
    let mut there = Vec::new();
    for now_ms in [1000, 3000, 6000, 9000, 11_000] {
        let now: Vec<bool> = homes(&mut policy, 4000, now_ms).iter().map(|id| *id == 2).collect();
        let before = there.last().cloned().unwrap_or(vec![false; 4000]);
        assert!(before.iter().zip(&now).all(|(before, now)| now >= before), "{now_ms}");
        there.push(now);
    }
    let counts: Vec<usize> =
        there.iter().map(|now| now.iter().filter(|is_there| **is_there).count()).collect();
    assert_eq!(counts[4], home.iter().filter(|id| **id == 2).count());
    assert!(counts[0] < counts[4] / 5 && counts[0] < counts[1] && counts[1] < counts[2], "{counts:?}");
}

#[test]
fn one_that_comes_back_gets_a_small_share_first() {
    for balance in [Balance::RoundRobin, Balance::LeastOfTwo] {
        let mut policy = policy(balance, 4);
        policy.handle_down(1);
        policy.handle_up(1, 0);
        let share = |policy: &mut Policy, now_ms| {
            let mut out = Vec::new();
            for _ in 0..400 {
                let mut course = policy.begin(None, false, now_ms + 1000);
                out.push(policy.pick(&mut course, now_ms).expect("endpoints"));
            }
            out.iter().for_each(|id| policy.abandon(*id));
            out.iter().filter(|id| **id == 1).count()
        };
        let (early, late) = (share(&mut policy, 0), share(&mut policy, 10_000));
        assert!(early < 40 && late > 80, "{balance:?}: {early}, then {late}");
    }
}

#[test]
fn what_may_have_run_is_made_again_only_if_it_may_run_twice() {
    for (may_run_twice, end, again) in [
        (false, End::Unanswered(Code::Lost), false),
        (true, End::Unanswered(Code::Lost), true),
        (true, End::Unanswered(Code::Deadline), false),
        (false, End::Replied(Code::Overloaded), true),
        (false, End::Replied(Code::Unavailable), true),
        (false, End::Replied(Code::TooMany), true),
        (true, End::Replied(Code::NoRoom), false),
        (true, End::Replied(Code::Internal), false),
        (true, End::Replied(Code::Invalid), false),
        (true, End::Replied(Code::Deadline), false),
        (false, End::NotSent(Code::Unavailable), true),
        (true, End::NotSent(Code::Overloaded), false),
    ] {
        let mut policy = policy(Balance::RoundRobin, 2);
        let mut course = policy.begin(None, may_run_twice, 10_000);
        let id = policy.pick(&mut course, 0).expect("endpoints");
        let next = policy.end(&mut course, id, Err(end), 0, 0);
        assert_eq!(matches!(next, Next::Again { .. }), again, "{end:?}, idempotent {may_run_twice}");
        if again {
            assert_ne!(policy.pick(&mut course, 0), Some(id), "another is tried first");
        }
    }
}

#[test]
fn what_never_left_moves_on_unpaid_until_all_were_tried() {
    let mut policy = Policy::new(PolicyConfig { retry_percent: 0, ..PolicyConfig::default() }, 1);
    policy.set_endpoints(&addresses(4), 0);
    let mut course = policy.begin(None, false, 10_000);
    let mut tried = Vec::new();
    loop {
        let id = policy.pick(&mut course, 0).expect("endpoints");
        tried.push(id);
        policy.handle_down(id);
        match policy.end(&mut course, id, Err(End::NotSent(Code::Unavailable)), 0, 0) {
            Next::Again { after_ms } => assert_eq!((after_ms, course.attempt()), (0, 0)),
            Next::Over => break,
        }
    }
    tried.sort_unstable();
    assert_eq!((tried, policy.retries()), (vec![0, 1, 2, 3], 0));
}

#[test]
fn a_wait_that_the_deadline_does_not_bear_ends_the_call() {
    let mut policy = policy(Balance::RoundRobin, 2);
    for (retry_after_ms, again) in [(400, true), (600, false)] {
        let mut course = policy.begin(None, true, 1500);
        let id = policy.pick(&mut course, 1000).expect("endpoints");
        let next = policy.end(&mut course, id, Err(End::Replied(Code::Overloaded)), retry_after_ms, 1000);
        assert_eq!(next, if again { Next::Again { after_ms: 400 } } else { Next::Over });
    }
}

#[test]
fn without_endpoints_there_is_nowhere_to_go() {
    let mut policy = Policy::new(PolicyConfig::default(), 1);
    let mut course = policy.begin(None, true, 1000);
    assert_eq!(policy.pick(&mut course, 0), None);
    policy.set_endpoints(&addresses(1), 0);
    let id = policy.pick(&mut course, 0).expect("one");
    policy.set_endpoints(&[], 0);
    // Its end comes after it was removed.
    policy.end(&mut course, id, Err(End::Unanswered(Code::Lost)), 0, 0);
    assert_eq!(policy.pick(&mut course, 0), None);
}

/// What may happen in the life of a client.
#[derive(Debug, Clone)]
enum Step {
    Call { key: Option<u64>, idempotent: bool },
    End { which: usize, how: u8, retry_after_ms: u32 },
    Abandon { which: usize },
    Up(usize),
    Down(usize),
    List(Vec<bool>),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<Option<u64>>(), any::<bool>()).prop_map(|(key, idempotent)| Step::Call { key, idempotent }),
        6 => (any::<usize>(), 0u8..7, 0u32..50)
            .prop_map(|(which, how, retry_after_ms)| Step::End { which, how, retry_after_ms }),
        1 => any::<usize>().prop_map(|which| Step::Abandon { which }),
        1 => any::<usize>().prop_map(Step::Up),
        1 => any::<usize>().prop_map(Step::Down),
        1 => proptest::collection::vec(any::<bool>(), 6).prop_map(Step::List),
        2 => (0u64..3000).prop_map(Step::Wait),
    ]
}

struct Out {
    course: Course,
    id: u32,
    idempotent: bool,
    until_ms: u64,
    attempts: u8,
}

proptest! {
    #[test]
    fn over_any_life_the_bounds_hold(
        steps in proptest::collection::vec(step(), 1..400),
        seed: u64,
        balance in prop_oneof![Just(Balance::LeastOfTwo), Just(Balance::RoundRobin), Just(Balance::Key)],
    ) {
        let config = PolicyConfig { balance, ..PolicyConfig::default() };
        let mut policy = Policy::new(config.clone(), seed);
        let all = addresses(6);
        let mut ids: HashMap<u32, Address> = policy.set_endpoints(&all, 0).added.into_iter().collect();
        let mut down: Vec<u32> = Vec::new();
        let (mut out, mut now_ms, mut calls, mut retries): (Vec<Out>, u64, u64, u64) = (Vec::new(), 0, 0, 0);
        for step in steps {
            match step {
                Step::Call { key, idempotent } => {
                    calls += 1;
                    let until_ms = now_ms + 500;
                    let mut course = policy.begin(key, idempotent, until_ms);
                    let picked = policy.pick(&mut course, now_ms);
                    prop_assert_eq!(picked.is_none(), ids.is_empty());
                    if let Some(id) = picked {
                        prop_assert!(ids.contains_key(&id), "{} was removed", id);
                        if ids.keys().any(|id| !down.contains(id)) && policy.ejections() == 0 {
                            prop_assert!(!down.contains(&id), "{} is down and others are not", id);
                        }
                        out.push(Out { course, id, idempotent, until_ms, attempts: 1 });
                    }
                }
                Step::End { which, how, retry_after_ms } if !out.is_empty() => {
                    let mut one = out.swap_remove(which % out.len());
                    let end = [
                        Ok(()),
                        Err(End::Replied(Code::Overloaded)),
                        Err(End::Replied(Code::Internal)),
                        Err(End::NotSent(Code::Unavailable)),
                        Err(End::NotSent(Code::Overloaded)),
                        Err(End::Unanswered(Code::Lost)),
                        Err(End::Unanswered(Code::Deadline)),
                    ][usize::from(how)];
                    let (paid, ejections) = (policy.retries(), policy.ejections());
                    match policy.end(&mut one.course, one.id, end, retry_after_ms, now_ms) {
                        Next::Over => {}
                        Next::Again { after_ms } => {
                            let ran = matches!(end, Err(End::Unanswered(_)));
                            prop_assert!(end.is_err() && (!ran || one.idempotent), "{:?}", end);
                            prop_assert!(after_ms == 0 || now_ms + after_ms < one.until_ms);
                            if policy.retries() > paid {
                                retries += 1;
                                one.attempts += 1;
                                prop_assert!(after_ms >= u64::from(retry_after_ms));
                            }
                            prop_assert!(one.attempts <= config.max_attempts);
                            if let Some(id) = policy.pick(&mut one.course, now_ms) {
                                prop_assert!(ids.contains_key(&id));
                                out.push(Out { id, ..one });
                            }
                        }
                    }
                    if policy.ejections() > ejections {
                        let ejected = policy.endpoints.iter().filter(|e| e.health.is_ejected()).count();
                        let reachable = policy.endpoints.iter().filter(|e| !e.health.is_down()).count();
                        prop_assert!(ejected * 2 <= reachable, "{} of {} ejected", ejected, reachable);
                    }
                    prop_assert!(retries * 100 <= 1000 + calls * 10, "{} retries of {} calls", retries, calls);
                }
                Step::Abandon { which } if !out.is_empty() => {
                    let one = out.swap_remove(which % out.len());
                    policy.abandon(one.id);
                }
                Step::Up(_) | Step::Down(_) if ids.is_empty() => {}
                Step::Up(which) => {
                    let id = *ids.keys().nth(which % ids.len()).expect("in bounds");
                    policy.handle_up(id, now_ms);
                    down.retain(|known| *known != id);
                }
                Step::Down(which) => {
                    let id = *ids.keys().nth(which % ids.len()).expect("in bounds");
                    policy.handle_down(id);
                    down.push(id);
                }
                Step::List(there) => {
                    let list: Vec<Address> =
                        all.iter().zip(&there).filter(|(_, is_there)| **is_there).map(|(a, _)| a.clone()).collect();
                    let changes = policy.set_endpoints(&list, now_ms);
                    changes.removed.iter().for_each(|id| drop(ids.remove(id)));
                    ids.extend(changes.added);
                    down.retain(|id| ids.contains_key(id));
                    prop_assert_eq!(ids.len(), list.len());
                }
                Step::Wait(ms) => now_ms += ms,
                Step::End { .. } | Step::Abandon { .. } => {}
            }
            for id in ids.keys() {
                let known = out.iter().filter(|one| one.id == *id).count();
                prop_assert_eq!(policy.in_flight(*id) as usize, known);
            }
        }
    }
}
