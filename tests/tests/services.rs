//! What a user has beyond messages, from phone to phone through real processes, across kills of the backend.

use prost::Message;
use proto_wire::close::Reason;
use proto_wire::pb::{self, GroupAction, Relation, change::Body, notice::What};
use proto_wire::phone::CloseReason;
use proto_wire::services::{account, contacts, messages, moments};
use proto_wire::status::Code;
use tests::fleet::{Fleet, PhoneId};
use tests::{System, limits};

const ALICE: u64 = 11;
const BOB: u64 = 12;
const CAROL: u64 = 13;

/// Alice and Bob are contacts.
fn befriend(fleet: &mut Fleet, alice: PhoneId, bob: PhoneId) {
    let ask = pb::AskRequest { id: fleet.upload_id(alice), user: BOB, hello: "it is me".into() };
    assert_eq!(fleet.ask(alice, &contacts::ASK, &ask).expect("an answer").status, Code::Ok);
    shows(fleet, bob, |fleet| fleet.seen(bob).peer(ALICE).relation() == Relation::Asks);
    let accept = pb::PeerRequest { id: fleet.upload_id(bob), user: ALICE };
    assert_eq!(fleet.ask(bob, &contacts::ACCEPT, &accept).expect("an answer").status, Code::Ok);
    shows(fleet, alice, |fleet| fleet.seen(alice).peer(BOB).relation() == Relation::Contact);
}

/// Waits until a phone shows something, by itself.
fn shows(fleet: &mut Fleet, phone: PhoneId, is_it: impl FnMut(&Fleet) -> bool) {
    let mut is_it = is_it;
    let shown = fleet.run_until("what a phone shows", limits::SOON_MS, |fleet| is_it(fleet));
    assert!(shown.is_ok(), "it does not come: {:?}", fleet.seen(phone).items);
}

fn number(body: bytes::Bytes) -> u64 {
    let reply = pb::ChangeReply::decode(body).expect("a reply");
    assert_eq!(reply.ack(), pb::Ack::Local);
    reply.number.expect("a number").number
}

#[test]
fn contacts_moments_and_settings_reach_all_devices_and_survive_a_kill() {
    let mut system = System::start("services").expect("a system");
    let mut fleet = system.fleet(1).expect("phones");
    let (alice, bob) = (fleet.add_up(ALICE).expect("up"), fleet.add_up(BOB).expect("up"));
    befriend(&mut fleet, alice, bob);
    let post =
        pb::PublishRequest { id: fleet.upload_id(alice), text: "sunrise".into(), ..Default::default() };
    let published = fleet.ask(alice, &moments::PUBLISH, &post).expect("an answer");
    let moment = number(published.body);
    shows(&mut fleet, bob, |fleet| fleet.seen(bob).items.contains_key(&(ALICE, moment)));
    let set = pb::SetSettingRequest { id: fleet.upload_id(bob), key: "sound".into(), value: "off".into() };
    assert_eq!(fleet.ask(bob, &account::SET_SETTING, &set).expect("an answer").status, Code::Ok);

    system.backend.kill().expect("killed");
    system.backend.start().expect("started");
    system.backend.wait_until_ready().expect("ready");
    let say = pb::SayRequest {
        id: fleet.upload_id(bob),
        author: ALICE,
        post: moment,
        text: "where?".into(),
        like: false,
    };
    let said = number(fleet.ask(bob, &moments::SAY, &say).expect("an answer").body);
    shows(
        &mut fleet,
        alice,
        |fleet| matches!(fleet.seen(alice).items.get(&(BOB, said)), Some(Body::Comment(comment)) if comment.text == "where?"),
    );
    // Another device of Bob begins with nothing and shows the same.
    let tablet = fleet.add_device(BOB, 77, 1);
    fleet.connect(tablet);
    shows(&mut fleet, tablet, |fleet| fleet.seen(tablet).items == fleet.seen(bob).items);
    let get = pb::GetMomentRequest { author: ALICE, post: moment, ..Default::default() };
    let read = fleet.ask(tablet, &moments::GET, &get).expect("an answer");
    let read = pb::Moment::decode(read.body).expect("a moment");
    assert!(read.post.is_some_and(|post| post.text == "sunrise") && read.said.len() == 1);
    let carol = fleet.add_up(CAROL).expect("up");
    assert_eq!(fleet.ask(carol, &moments::GET, &get).expect("an answer").status, Code::NotFound);
}

#[test]
fn a_group_changes_a_message_is_taken_back_and_read_and_typing_is_seen() {
    let system = System::start("groups").expect("a system");
    let mut fleet = system.fleet(2).expect("phones");
    let (alice, bob) = (fleet.add_up(ALICE).expect("up"), fleet.add_up(BOB).expect("up"));
    let carol = fleet.add_up(CAROL).expect("up");
    let group = fleet.make_group(alice, &[BOB]).expect("a group");
    let change = |fleet: &mut Fleet, action: GroupAction, users: Vec<u64>| pb::ChangeGroupRequest {
        id: fleet.upload_id(alice),
        group,
        action: action.into(),
        users,
        name: String::new(),
    };
    let invite = change(&mut fleet, GroupAction::Invite, vec![CAROL]);
    assert_eq!(fleet.ask(alice, &messages::CHANGE_GROUP, &invite).expect("an answer").status, Code::Ok);
    let is_member = |fleet: &Fleet, phone: PhoneId| matches!(fleet.seen(phone).items.get(&(group, 1)), Some(Body::Group(state)) if state.members == [ALICE, BOB, CAROL]);
    shows(&mut fleet, carol, |fleet| is_member(fleet, carol) && is_member(fleet, bob));

    let typing = pb::TypingRequest { to: BOB };
    assert_eq!(fleet.ask(alice, &messages::TYPING, &typing).expect("an answer").status, Code::Ok);
    let is_typing =
        |notice: &pb::Notice| matches!(&notice.what, Some(What::Typing(typing)) if typing.from == ALICE);
    shows(&mut fleet, bob, |fleet| fleet.seen(bob).notices.iter().any(is_typing));

    let send =
        pb::SendRequest { id: fleet.upload_id(alice), to: BOB, text: "oh no".into(), ..Default::default() };
    let sent = fleet.ask(alice, &messages::SEND, &send).expect("an answer");
    let item = pb::SendReply::decode(sent.body).expect("a reply").number.expect("a number").number;
    let mark = pb::MarkRequest { peer: ALICE, read: u64::MAX, delivered_item: item, read_item: item };
    assert_eq!(fleet.ask(bob, &messages::MARK, &mark).expect("an answer").status, Code::Ok);
    shows(&mut fleet, alice, |fleet| fleet.seen(alice).peer(BOB).read_there == item);
    let recall = pb::RecallRequest { id: fleet.upload_id(alice), number: item };
    assert_eq!(fleet.ask(alice, &messages::RECALL, &recall).expect("an answer").status, Code::Ok);
    shows(
        &mut fleet,
        bob,
        |fleet| matches!(fleet.seen(bob).items.get(&(ALICE, item)), Some(Body::Message(message)) if message.recalled),
    );
}

#[test]
fn a_device_that_is_logged_out_is_cut_off_and_refused() {
    let system = System::start("devices").expect("a system");
    let mut fleet = system.fleet(3).expect("phones");
    let phone = fleet.add_device(ALICE, 1, 1);
    let lost = fleet.add_device(ALICE, 2, 1);
    for device in [phone, lost] {
        fleet.connect(device);
        fleet.run_until("the connection", limits::SOON_MS, |fleet| fleet.is_up(device)).expect("up");
    }
    let out = pb::LogOutRequest { id: fleet.upload_id(phone), device: 2 };
    assert_eq!(fleet.ask(phone, &account::LOG_OUT, &out).expect("an answer").status, Code::Ok);
    const OUT: CloseReason = CloseReason::Server(Reason::LoggedOut as u16);
    shows(&mut fleet, lost, |fleet| fleet.seen(lost).closes == [OUT]);
    // Its token is still good, so it gets in; but no call of it is done, and it is cut off again.
    fleet.connect(lost);
    let star = pb::SwitchRequest { id: fleet.upload_id(lost), user: BOB, on: true }.encode_to_vec();
    let call = fleet.call(lost, contacts::STAR.id, star.into(), 5_000);
    shows(&mut fleet, lost, |fleet| fleet.seen(lost).closes == [OUT, OUT]);
    assert!(fleet.reply(lost, call).is_none_or(|reply| reply.status != Code::Ok));
    let star = pb::SwitchRequest { id: fleet.upload_id(phone), user: BOB, on: true };
    assert_eq!(fleet.ask(phone, &contacts::STAR, &star).expect("an answer").status, Code::Ok);
    // The last one logs itself out: it has its answer, and is cut off then.
    let out = pb::LogOutRequest { id: fleet.upload_id(phone), device: 1 };
    assert_eq!(fleet.ask(phone, &account::LOG_OUT, &out).expect("an answer").status, Code::Ok);
    shows(&mut fleet, phone, |fleet| fleet.seen(phone).closes == [OUT]);
}
