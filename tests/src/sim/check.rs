//! What must hold at the end of a run.

use std::collections::BTreeMap;

use benches::mixed::judge::Verdict;
use benches::state::Book;
use proto_wire::pb;

use super::phone::Phone;
use super::world::World;

/// Who waits, and for what. Nothing: all is where it belongs.
pub fn waits(world: &World) -> Vec<String> {
    let mut waits = Vec::new();
    if !world.backend.is_ready() {
        waits.push("the backend is not ready".to_owned());
    }
    for phone in &world.phones {
        if world.shared.crowd.as_ref().is_some_and(|crowd| crowd.out.contains(&phone.index)) {
            if phone.is_up() {
                waits.push(format!("phone {} was logged out and is up", phone.index));
            }
            continue;
        }
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
    match &world.shared.crowd {
        Some(crowd) => judge_crowd(crowd.is_ready().then(|| crowd.judge()), world),
        None => judge_messages(world),
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

fn judge_messages(world: &mut World) {
    let verdict = world.shared.history.verdict();
    if !verdict.is_good() {
        world.shared.complain(format!("{:?}", verdict.counts));
        verdict.complaints.into_iter().take(3).for_each(|words| world.shared.complain(words));
    }
}

fn judge_crowd(verdict: Option<Verdict>, world: &mut World) {
    let Some(verdict) = verdict else {
        return world.shared.count("runs whose groups and contacts were not made", 1);
    };
    if verdict.total() > 0 {
        world.shared.complain(format!("{:?}", verdict.wrong));
    }
    verdict.complaints.into_iter().take(5).for_each(|words| world.shared.complain(words));
}

/// Each phone of a user holds the newest version of everything, under the numbers of the log; what one number is to one
/// phone it is to all.
fn compare(world: &mut World, user: u64, log: &[pb::Change]) {
    let mut is: BTreeMap<u64, pb::Change> = BTreeMap::new();
    let mut complaints = Vec::new();
    let mut items: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for change in log {
        let item = change.item.unwrap_or_default();
        if let Some(earlier) = items.insert((item.origin, item.number), change.number) {
            complaints.push(format!(
                "a new phone of user {user} gets number {earlier}, and what replaced it: {change:?}"
            ));
        }
    }
    let mut fresh = Book::new(user);
    fresh.apply(&pb::Page { changes: log.to_vec(), ..Default::default() });
    let crowd = world.shared.crowd.as_ref();
    let is_in =
        |phone: &&Phone| phone.user == user && !crowd.is_some_and(|crowd| crowd.is_leaving(phone.index));
    for phone in world.phones.iter().filter(is_in) {
        if let Some(book) = crowd.map(|crowd| crowd.book(phone.index))
            && book.digest() != fresh.digest()
        {
            complaints.push(format!(
                "phone {} of user {user} and a new one: {:?}",
                phone.index,
                book.differences(&fresh)
            ));
        }
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
