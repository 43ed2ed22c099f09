//! A data directory that a core has written to, and what lives in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::{env, fs, process};

use bytes::Bytes;
use clap::Parser as _;
use proto_wire::names::UploadId;
use proto_wire::pb;
use proto_wire::status::Status;

use crate::cli::{Cli, Command};
use crate::logic::services::{ACCOUNT, key_of};
use crate::logic::{Answer, At, Core, CoreConfig, KvKey, Upload, Verb};
use crate::offline::store::Store;
use crate::storage::embedded::{Embedded, Options};
use crate::storage::{Batch, Completion, partition_of};
use crate::turn::{self, Outward};

pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("moorgate-offline-{}-{number}", process::id()));
        // Left behind by a test that was killed, under a process id that came again.
        let _ = fs::remove_dir_all(&dir);
        Self(dir)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn store(&self) -> Store {
        Store::open(&self.0).expect("a store")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A backend without its network: a core on the store of a data directory.
pub struct World {
    core: Core,
    store: Embedded,
    woken: Receiver<()>,
    completions: Vec<Completion>,
    at: At,
    answers: Answers,
    tokens: u64,
}

#[derive(Default)]
struct Answers {
    answers: BTreeMap<u64, Result<Answer, Status>>,
    logs: Vec<String>,
}

impl Outward for Answers {
    fn answer(&mut self, token: u64, answer: Result<Answer, Status>) {
        self.answers.insert(token, answer);
    }

    fn notify(&mut self, _: u64, _: u64, _: u16, _: &pb::NotifyRequest) -> Result<(), Status> {
        Ok(())
    }

    fn log(&mut self, line: &str) {
        self.logs.push(line.to_owned());
    }
}

impl World {
    pub fn open(data: &Path, partitions: u16) -> Self {
        let (wake, woken) = channel();
        let options = Options { partitions, reserve_bytes: 0, ..Options::new(data.join("store")) };
        let (store, opened) = Embedded::open(&options, |_| {
            let wake = wake.clone();
            Box::new(move || {
                let _ = wake.send(());
            })
        })
        .expect("it opens");
        // Without rows in memory all is read from the disk.
        let config = CoreConfig {
            log_epoch: opened.log_epoch,
            owner_epoch: opened.owner_epoch,
            hot_bytes: 0,
            ..CoreConfig::new(1, 1, opened.partitions)
        };
        // Ids of uploads carry the time: no two worlds give the same ones.
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let later_ms = 600_000 * OPENED.fetch_add(1, Ordering::Relaxed);
        let at = At { now_ms: 1_000_000, unix_ms: 1_800_000_000_000 + later_ms };
        let mut world = Self {
            core: Core::new(config),
            store,
            woken,
            completions: Vec::new(),
            at,
            answers: Answers::default(),
            tokens: 0,
        };
        world.run();
        assert!(world.core.is_ready());
        world
    }

    /// Until nothing moves any more.
    pub fn run(&mut self) {
        loop {
            turn::take(&mut self.core, &mut self.store, &mut self.completions, self.at, &mut self.answers);
            if self.core.is_idle() {
                break;
            }
            self.woken.recv().expect("the store's threads live as long as it does");
        }
        self.at.now_ms += 1;
        self.at.unix_ms += 1;
    }

    fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    fn id(&mut self) -> Bytes {
        Bytes::copy_from_slice(&UploadId::new(self.at.unix_ms, [7; 10]).0)
    }

    fn ended(&mut self, token: u64) -> Answer {
        self.run();
        let answer = self.answers.answers.remove(&token).expect("it was answered");
        answer.unwrap_or_else(|status| panic!("refused: {status:?}; {:?}", self.answers.logs))
    }

    pub fn send(&mut self, from: u64, to: u64, text: &str) -> u64 {
        let (token, id) = (self.token(), self.id());
        let request = pb::SendRequest { id, to, text: text.to_owned(), ..Default::default() };
        self.core.send(self.at, token, from, 1, &request);
        self.number(token)
    }

    fn number(&mut self, token: u64) -> u64 {
        match self.ended(token) {
            Answer::Sent(reply, _) => reply.number.expect("it has a number").number,
            other => panic!("{other:?}"),
        }
    }

    pub fn verb(&mut self, user: u64, verb: Verb) -> u64 {
        let (token, id) = (self.token(), self.id());
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(format!("{verb:?}").as_bytes()).as_bytes()[..16]);
        self.core.upload(self.at, token, user, 1, Upload { id, hash, verb });
        self.number(token)
    }

    pub fn befriend(&mut self, user: u64, peer: u64) {
        self.verb(user, Verb::Ask { peer, hello: "hello".into() });
        self.verb(peer, Verb::Accept { peer: user });
    }

    pub fn group(&mut self, owner: u64, members: &[u64]) -> u64 {
        let (token, id) = (self.token(), self.id());
        let request = pb::CreateGroupRequest { id, name: "tea".into(), members: members.to_vec() };
        self.core.create_group(self.at, token, owner, &request);
        match self.ended(token) {
            Answer::Group(reply) => reply.group,
            other => panic!("{other:?}"),
        }
    }

    pub fn log_in(&mut self, user: u64, device: u64, name: &str) {
        let token = self.token();
        self.core.log_in(self.at, token, user, device, name);
        self.ended(token);
    }

    pub fn mark(&mut self, user: u64, peer: u64, read: u64) {
        let token = self.token();
        let request = pb::MarkRequest { peer, read, delivered_item: 1, read_item: 1 };
        self.core.mark(self.at, token, user, 1, &request);
        self.ended(token);
    }

    pub fn account(&mut self, name: &str, user: u64) {
        let token = self.token();
        let mut value = vec![1];
        value.extend_from_slice(&user.to_le_bytes());
        value.extend_from_slice(b"$argon2id$secret");
        let key: KvKey = key_of(name).expect("a name");
        assert_eq!(key.kind, ACCOUNT);
        self.core.kv_create(token, key, value.into());
        self.ended(token);
    }

    pub fn pull(&mut self, user: u64, cursor: pb::Cursor, snapshot_at: Bytes) -> pb::Page {
        let token = self.token();
        let request = pb::PullRequest { cursor: Some(cursor), snapshot_at, max_changes: 7 };
        self.core.pull(self.at, token, user, 1, &request);
        match self.ended(token) {
            Answer::Page(page) => page.to_page(),
            other => panic!("{other:?}"),
        }
    }

    /// A store with something of every kind, of users 1 to 4. User 1 is alice, and in two groups.
    pub fn lived_in(data: &Path, partitions: u16) -> Lived {
        let mut world = Self::open(data, partitions);
        world.account("alice", 1);
        world.account("bob", 2);
        world.log_in(1, 11, "phone");
        world.log_in(1, 12, "tablet");
        world.verb(1, Verb::LogOut { device: 12 });
        world.verb(1, Verb::SetSetting { key: "colour".into(), value: "blue".into() });
        let profile = pb::Profile { nick: "Alice".into(), ..Default::default() };
        world.verb(1, Verb::SetProfile { profile });
        world.befriend(1, 2);
        world.befriend(3, 1);
        world.verb(1, Verb::Ask { peer: 4, hello: "it is me".into() });
        world.verb(1, Verb::Remark { peer: 2, remark: "bobby".into() });
        world.send(1, 2, "good morning");
        let taken_back = world.send(1, 2, "a mistake");
        world.verb(1, Verb::Recall { number: taken_back });
        world.send(2, 1, "good morning to you");
        world.mark(2, 1, 1);
        let group = world.group(1, &[2, 3]);
        world.send(1, group, "to the group");
        world.send(3, group, "to the group as well");
        let change = |action: pb::GroupAction, users: Vec<u64>| Verb::ChangeGroup {
            group,
            change: pb::GroupEvent { action: action.into(), users, ..Default::default() },
        };
        world.verb(1, change(pb::GroupAction::Invite, vec![4]));
        world.verb(3, change(pb::GroupAction::Leave, vec![]));
        world.group(4, &[1]);
        let post = |text: &str| Verb::Publish { post: pb::Post { text: text.into(), ..Default::default() } };
        let moment = world.verb(1, post("a fine day"));
        let withdrawn = world.verb(1, post("a bad day"));
        world.verb(1, Verb::Withdraw { moment: withdrawn });
        let said =
            |text: &str| pb::Comment { author: 1, post: moment, text: text.into(), ..Default::default() };
        world.verb(2, Verb::Say { comment: said("indeed") });
        let unsaid = world.verb(3, Verb::Say { comment: said("no") });
        world.verb(3, Verb::Unsay { author: 1, moment, from: 3, number: unsaid });
        world.verb(4, Verb::Block { peer: 2, on: true });
        world.run();
        Lived { group, moment }
    }
}

/// What tests need to know of a store that was lived in.
pub struct Lived {
    pub group: u64,
    pub moment: u64,
}

/// Runs a tool as the command line does: what it says, or why it ends with 1.
pub fn tool(words: &[&str], data: &Path) -> Result<String, String> {
    let (out, result) = tool_both(words, data);
    result.map(|()| out)
}

/// What a tool says, and how it ends.
pub fn tool_both(words: &[&str], data: &Path) -> (String, Result<(), String>) {
    let data = data.to_str().expect("a plain path");
    let words = ["moorgate-backend"].iter().chain(words).copied().chain(["--data", data]);
    let Command::Tool(tool) = Cli::try_parse_from(words).expect("it parses").command else {
        panic!("no tool");
    };
    let mut out = Vec::new();
    let result = crate::offline::run(tool, &mut out).map_err(|error| format!("{error:#}"));
    (String::from_utf8(out).expect("text"), result)
}

/// Changes the store of a data directory behind the core's back.
pub fn tamper(data: &Dir, key: &[u8], value: Option<&[u8]>) {
    let store = data.store();
    let mut batch = Batch::new(0);
    match value {
        Some(value) => batch.put(key, value),
        None => batch.delete(key),
    }
    let section = u16::from_be_bytes([key[0], key[1]]);
    store.commit(partition_of(section, store.partitions), batch).expect("written");
}
