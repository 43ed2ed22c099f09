use proptest::prelude::*;
use proto_wire::names::GROUP_BIT;
use proto_wire::pb::{self, GroupAction, Relation, change::Body};

use super::{Applied, Book};

const ME: u64 = 1;
const GROUP: u64 = GROUP_BIT | 7;

/// A log in the making.
#[derive(Default, Clone)]
struct Log {
    changes: Vec<pb::Change>,
}

impl Log {
    fn put(&mut self, (origin, number): (u64, u64), version: u64, body: Option<Body>) -> u64 {
        let change = pb::Change {
            number: self.changes.len() as u64 + 1,
            item: Some(pb::ItemId { origin, number }),
            version,
            deleted: body.is_none(),
            body,
        };
        self.changes.push(change);
        self.changes.len() as u64
    }

    fn message(&mut self, from: u64, to: u64, item: u64) -> u64 {
        self.put((from, item), 1, Some(message(from, to, "hello", false)))
    }

    fn peer(&mut self, peer: u64, version: u64, read: u64, relation: Relation) -> u64 {
        let peer_item = pb::Peer { peer, read, relation: relation.into(), ..Default::default() };
        self.put((peer, 0), version, Some(Body::Peer(peer_item)))
    }

    fn group(&mut self, version: u64, members: &[u64]) -> u64 {
        let group = pb::GroupState {
            group: GROUP,
            name: format!("v{version}"),
            members: members.into(),
            owner: members[0],
        };
        self.put((GROUP, 1), version, Some(Body::Group(group)))
    }

    fn event(&mut self, by: u64, item: u64, action: GroupAction, users: &[u64], number: u64) -> u64 {
        let event = pb::GroupEvent {
            group: GROUP,
            by,
            action: action.into(),
            users: users.into(),
            group_number: number,
            ..Default::default()
        };
        self.put((by, item), 1 + u64::from(number > 0), Some(Body::Event(event)))
    }

    fn book(&self) -> Book {
        let mut book = Book::new(ME);
        book.apply(&page(&self.changes));
        book
    }
}

fn page(changes: &[pb::Change]) -> pb::Page {
    pb::Page { changes: changes.to_vec(), ..Default::default() }
}

fn message(from: u64, to: u64, text: &str, recalled: bool) -> Body {
    let text = if recalled { String::new() } else { text.to_owned() };
    Body::Message(pb::Message { from, to, sent_ms: 5, text, recalled, ..Default::default() })
}

#[test]
fn unread_are_messages_of_others_behind_what_was_read() {
    let mut log = Log::default();
    log.message(2, ME, 10);
    let read = log.message(2, ME, 11);
    log.message(ME, 2, 3);
    log.message(2, ME, 12);
    let fourth = log.message(2, ME, 13);
    assert_eq!(log.book().unread(2), 4);
    log.peer(2, 1, read, Relation::Contact);
    assert_eq!(log.book().unread(2), 2);
    log.put((2, 13), 3, Some(message(2, ME, "", true)));
    let book = log.book();
    assert_eq!(book.unread(2), 1, "one that was taken back does not count");
    assert_eq!(book.messages(2).map(|(place, ..)| place).last(), Some(fourth), "and it keeps its place");
    assert_eq!((book.last_item_of(2), book.conversations().len()), (13, 1));
    assert_eq!(book.unread(9), 0);
}

#[test]
fn a_groups_message_stands_where_the_group_put_it() {
    let mut log = Log::default();
    log.message(ME, GROUP, 3);
    log.put((2, 8), 2, Some(message(2, GROUP, "first", false)));
    log.put((ME, 3), 2, Some(message(ME, GROUP, "hello", false)));
    let book = log.book();
    assert_eq!(book.messages(GROUP).map(|(_, item, _)| item).collect::<Vec<_>>(), [(2, 8), (ME, 3)]);
    assert_eq!(book.unread(GROUP), 1);
}

#[test]
fn an_older_version_loses_and_is_counted() {
    let mut log = Log::default();
    log.message(2, ME, 10);
    log.put((2, 10), 3, Some(message(2, ME, "", true)));
    let mut book = log.book();
    let late = pb::Change { number: 9, ..log.changes[0].clone() };
    assert_eq!(book.apply_change(&late), Applied::Older);
    assert_eq!(book.apply_change(&pb::Change { number: 9, ..log.changes[1].clone() }), Applied::Again);
    assert_eq!(book.apply_change(&pb::Change { number: 9, ..Default::default() }), Applied::Strange);
    assert!(book.message((2, 10)).is_some_and(|message| message.recalled));
    assert_eq!(book.noted(), super::Noted { again: 1, older: 1, strange: 1 });
    book.apply_change(&pb::Change { number: 10, version: 4, deleted: true, ..log.changes[0].clone() });
    assert_eq!(book.apply_change(&late), Applied::Older, "a tombstone wins too");
    assert!(book.message((2, 10)).is_none() && book.messages(2).next().is_none());
}

#[test]
fn a_group_is_gone_for_who_left_it_and_back_for_who_is_invited_again() {
    let mut log = Log::default();
    log.group(1, &[ME, 2, 3]);
    assert_eq!(log.book().groups().len(), 1);
    log.event(ME, 4, GroupAction::Leave, &[], 0);
    assert_eq!(log.book().groups().len(), 1, "the group has not heard of it");
    log.event(3, 9, GroupAction::Remove, &[5], 1);
    log.event(ME, 4, GroupAction::Leave, &[], 2);
    assert!(log.book().groups().is_empty() && log.book().group_version(GROUP).is_none());
    log.event(2, 5, GroupAction::Invite, &[ME], 3);
    log.group(4, &[ME, 2]);
    assert_eq!(log.book().group(GROUP).map(|group| group.members.clone()), Some(vec![ME, 2]));
    assert_eq!(log.book().events(GROUP).len(), 3);
    log.event(2, 6, GroupAction::Remove, &[ME], 4);
    assert!(log.book().group(GROUP).is_none());
}

#[test]
fn moments_are_those_of_contacts_and_what_was_said_goes_with_them() {
    let mut log = Log::default();
    let heard = |from| Some(Body::PostRef(pb::PostRef { from, posted_ms: 3 }));
    log.put((2, 20), 1, heard(2));
    assert!(log.book().moments().is_empty() && log.book().has_heard((2, 20)));
    log.peer(2, 1, 0, Relation::Contact);
    assert_eq!(log.book().moments().len(), 1);
    log.put((2, 20), 2, None);
    assert!(log.book().moments().is_empty() && !log.book().has_heard((2, 20)));
    log.put((ME, 30), 1, Some(Body::Post(pb::Post::default())));
    let comment = pb::Comment { author: ME, post: 30, from: 2, ..Default::default() };
    log.put((2, 40), 1, Some(Body::Comment(comment)));
    assert_eq!((log.book().comments((ME, 30)).len(), log.book().posts().len()), (1, 1));
    log.put((ME, 30), 2, None);
    assert_eq!((log.book().comments((ME, 30)).len(), log.book().posts().len()), (0, 0));
}

#[test]
fn books_that_differ_say_where() {
    let mut log = Log::default();
    log.message(2, ME, 10);
    let before = log.book();
    log.peer(2, 1, 1, Relation::Contact);
    let after = log.book();
    assert_ne!(before.digest(), after.digest());
    let told = before.differences(&after);
    assert!(told.len() == 1 && told[0].contains("nothing"), "{told:?}");
    assert!(after.differences(&after.clone()).is_empty());
}

/// A log as servers write one: versions of an item rise, but for some that come late.
fn log_of(steps: &[(u8, u8)]) -> Log {
    let mut log = Log::default();
    let (mut group, mut number) = (0, 0);
    for (at, &(kind, with)) in steps.iter().enumerate() {
        let (item, peer) = (100 + at as u64, 2 + u64::from(with % 3));
        let earlier = log.changes.get(with as usize % log.changes.len().max(1)).cloned();
        let newest = |log: &Log, item: &pb::ItemId| {
            log.changes.iter().filter(|change| change.item.as_ref() == Some(item)).map(|c| c.version).max()
        };
        match kind % 12 {
            0 | 1 => drop(log.message(peer, ME, item)),
            2 => drop(log.message(ME, [peer, GROUP][usize::from(with) % 2], item)),
            3 => drop(log.put((peer, item), 2, Some(message(peer, GROUP, "in a group", false)))),
            4 => {
                // What came earlier has a later version: numbered, taken back, or gone.
                let Some((id, body)) = earlier.and_then(|change| Some((change.item?, change.body?))) else {
                    continue;
                };
                let version = newest(&log, &id).unwrap_or(0) + 1;
                let body = match body {
                    Body::Message(m) if version > 2 => Some(message(m.from, m.to, "", true)),
                    Body::Message(m) if m.to == GROUP => Some(Body::Message(m)),
                    Body::Message(m) => Some(message(m.from, m.to, "", true)),
                    Body::PostRef(_) | Body::Comment(_) | Body::Post(_) => None,
                    _ => continue,
                };
                log.put((id.origin, id.number), version, body);
            }
            5 => {
                let item = pb::ItemId { origin: peer, number: 0 };
                let (version, relation) = (newest(&log, &item).unwrap_or(0) + 1, i32::from(with) % 4);
                let read = log.changes.len() as u64 * u64::from(with % 4) / 3;
                log.peer(peer, version, read, Relation::try_from(relation).expect("0 to 3"));
            }
            6 => {
                group += 1;
                log.group(group, &[ME, peer]);
            }
            7 => {
                number += 1;
                let action =
                    [GroupAction::Leave, GroupAction::Remove, GroupAction::Invite][usize::from(with) % 3];
                let by = if action == GroupAction::Leave { ME } else { peer };
                if by == ME {
                    log.event(by, item, action, &[], 0);
                }
                log.event(by, item, action, &[ME], number);
            }
            8 => {
                log.put((peer, item), 1, Some(Body::PostRef(pb::PostRef { from: peer, posted_ms: 1 })));
            }
            9 => {
                let comment = pb::Comment { author: ME, post: 100, from: peer, ..Default::default() };
                log.put((peer, item), 1, Some(Body::Comment(comment)));
            }
            10 => {
                let me = pb::ItemId { origin: ME, number: 0 };
                let version = newest(&log, &me).unwrap_or(0) + 1;
                let profile = Some(pb::Profile { nick: format!("n{with}"), ..Default::default() });
                log.put((ME, 0), version, Some(Body::Me(pb::Me { profile, ..Default::default() })));
            }
            _ => {
                let Some(late) = earlier else { continue };
                let id = late.item.expect("all have one");
                if newest(&log, &id) > Some(late.version) {
                    log.put((id.origin, id.number), late.version, late.body);
                }
            }
        }
    }
    log
}

/// What a server leaves of changes that it collapses: of each item the highest version.
fn collapsed(changes: &[pb::Change]) -> Vec<pb::Change> {
    let wins = |change: &&pb::Change| {
        !changes.iter().any(|other| other.item == change.item && other.version > change.version)
    };
    changes.iter().filter(wins).cloned().collect()
}

proptest! {
    #[test]
    fn pages_in_any_cut_give_the_same_book(
        steps in prop::collection::vec((0u8..12, any::<u8>()), 1..120),
        cuts in prop::collection::vec((1usize..20, any::<bool>()), 1..40),
    ) {
        let log = log_of(&steps);
        let whole = log.book();
        let mut cut = Book::new(ME);
        let mut rest = &log.changes[..];
        for (at, collapses) in cuts.iter().cycle() {
            let (changes, behind) = rest.split_at((*at).min(rest.len()));
            rest = behind;
            let changes = if *collapses { collapsed(changes) } else { changes.to_vec() };
            cut.apply(&page(&changes));
            // All of it again does nothing.
            cut.apply(&page(&changes));
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(whole.digest(), cut.digest(), "{:?}", whole.differences(&cut));
        let unread = |book: &Book| (2..5).chain([GROUP]).map(|with| book.unread(with)).collect::<Vec<_>>();
        prop_assert_eq!(unread(&whole), unread(&cut));
    }

    #[test]
    fn a_snapshot_gives_the_same_book_as_the_log(
        steps in prop::collection::vec((0u8..12, any::<u8>()), 1..120),
        before in 0usize..60,
        parts in 1usize..5,
        tombstones: bool,
    ) {
        let log = log_of(&steps);
        let whole = log.book();
        let mut state = collapsed(&log.changes);
        if !tombstones {
            state.retain(|change| !change.deleted);
        }
        // A phone that had something of another log forgets it.
        let mut book = log_of(&steps.iter().rev().copied().take(before).collect::<Vec<_>>()).book();
        for (at, part) in state.chunks(state.len().div_ceil(parts).max(1)).enumerate() {
            book.apply_snapshot(&page(part), at == 0);
        }
        if state.is_empty() {
            book.apply_snapshot(&page(&[]), true);
        }
        prop_assert_eq!(whole.digest(), book.digest(), "{:?}", whole.differences(&book));
        prop_assert_eq!(whole.groups(), book.groups());
        let unread = |book: &Book| (2..5).chain([GROUP]).map(|with| book.unread(with)).collect::<Vec<_>>();
        prop_assert_eq!(unread(&whole), unread(&book));
    }
}
