//! What must hold at the end of a run.

use std::collections::BTreeMap;

use proto_wire::pb;

use super::world::World;

/// Who waits, and for what. Nothing: all is where it belongs.
pub fn waits(world: &World) -> Vec<String> {
    let mut waits = Vec::new();
    if !world.backend.is_ready() {
        waits.push("the backend is not ready".to_owned());
    }
    for phone in &world.phones {
        let (has, newest) = (phone.cursor().number, world.backend.disk.newest(phone.user));
        if has != newest {
            let up = if phone.is_up() { "up" } else { "not up" };
            waits.push(format!(
                "phone {} of user {} waits: it has {has} of {newest} and is {up}",
                phone.index, phone.user
            ));
        }
        if !phone.is_up() {
            waits.push(format!("phone {} does not come back", phone.index));
        }
        if !phone.is_idle() {
            waits.push(format!("phone {} waits for an acknowledgement", phone.index));
        }
    }
    let duties = world.backend.disk.duties();
    if duties > 0 {
        waits.push(format!("{duties} duties are not fulfilled"));
    }
    let missing = world.shared.history.missing();
    if missing > 0 {
        waits.push(format!("{missing} copies of acknowledged messages are missing"));
    }
    waits
}

/// The verdict on what came, and the logs of all phones against those of the backend.
pub fn at_the_end(world: &mut World) {
    let verdict = world.shared.history.verdict();
    if !verdict.is_good() {
        world.shared.complain(format!("{:?}", verdict.counts));
        verdict.complaints.into_iter().take(3).for_each(|words| world.shared.complain(words));
    }
    let left = world.gates.iter().flat_map(|gate| gate.left_over()).chain(world.backend.left_over());
    left.collect::<Vec<_>>().into_iter().for_each(|words| world.shared.complain(words));
    let mut users: Vec<u64> = world.phones.iter().map(|phone| phone.user).collect();
    users.dedup();
    for user in users {
        match world.backend.whole_log(user, &mut world.shared) {
            Ok(log) => compare(world, user, &log),
            Err(why) => world.shared.complain(format!("the log of user {user} cannot be read: {why}")),
        }
    }
}

/// Each phone of a user holds the newest version of everything, under the numbers of the log; what one number is to one
/// phone it is to all.
fn compare(world: &mut World, user: u64, log: &[pb::Change]) {
    let mut is: BTreeMap<u64, pb::Change> = BTreeMap::new();
    let mut complaints = Vec::new();
    for phone in world.phones.iter().filter(|phone| phone.user == user) {
        let mut differ = log.iter().filter(|change| phone.log.get(&change.number) != Some(change));
        if let Some(first) = differ.next() {
            let (here, others) = (phone.log.get(&first.number), differ.count());
            complaints.push(format!(
                "phone {} has {here:?} where its log has {first:?}, and differs {others} times more",
                phone.index
            ));
        }
        for (number, change) in &phone.log {
            let other = is.entry(*number).or_insert_with(|| change.clone());
            if other != change {
                complaints.push(format!("number {number} of user {user} is {change:?} and {other:?}"));
            }
        }
    }
    complaints.into_iter().for_each(|words| world.shared.complain(words));
}
