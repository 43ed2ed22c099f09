//! Sign-up, log-in, and what the tokens are worth.

use std::fs;

use proto_wire::names::GROUP_BIT;
use proto_wire::pb;
use proto_wire::services::account::{FIND, LOG_IN, SIGN_UP};
use proto_wire::services::echo;
use proto_wire::status::Code;
use proto_wire_token::{Verifier, Verify};

use crate::client::{Client, Reply, phone};
use crate::fixture::Backend;

fn sign_up(client: &mut Client, name: &str, password: &str) -> Reply {
    client.call(
        &SIGN_UP,
        None,
        &pb::SignUpRequest { name: name.into(), password: password.into(), ..Default::default() },
    )
}

fn log_in(client: &mut Client, name: &str, password: &str) -> Reply {
    client.call(
        &LOG_IN,
        None,
        &pb::LogInRequest { name: name.into(), password: password.into(), ..Default::default() },
    )
}

#[test]
fn a_name_and_a_password_give_a_token_that_gateways_accept() {
    let backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    let reply: pb::TokenReply = sign_up(&mut client, "alice", "correct horse").decode();
    assert!(reply.user != 0 && reply.user & GROUP_BIT == 0);
    assert_eq!(reply.ack, i32::from(pb::Ack::Local));
    let pem = fs::read_to_string(backend.dir.0.join("keys/verify.pem")).expect("made at start");
    let verifier = Verifier::from_pems(&[&pem]).expect("public keys");
    let last_good_s = reply.expires_ms / 1000 - 1;
    let claims = verifier.verify(&reply.token, last_good_s).expect("good");
    assert_eq!((claims.user, claims.home, claims.device), (reply.user, 0, None));
    assert_eq!(claims.expires_s - claims.issued_s, 7 * 24 * 3600);
    verifier.verify(&reply.token, last_good_s + 1).expect_err("over");
}

#[test]
fn the_same_sign_up_again_is_a_log_in_and_a_wrong_password_is_denied() {
    let mut backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    let first: pb::TokenReply = sign_up(&mut client, "alice", "correct horse").decode();
    let again: pb::TokenReply = sign_up(&mut client, "alice", "correct horse").decode();
    let login: pb::TokenReply = log_in(&mut client, "alice", "correct horse").decode();
    assert_eq!((again.user, login.user), (first.user, first.user));
    let taken = sign_up(&mut client, "alice", "another horse");
    let wrong = log_in(&mut client, "alice", "another horse");
    let nobody = log_in(&mut client, "nobody", "another horse");
    for denied in [taken, wrong, nobody] {
        assert_eq!(denied.code, Code::Denied);
        assert_eq!(denied.text(), "the name or the password is wrong");
    }
    let found: pb::FindReply =
        client.call(&FIND, phone(9), &pb::FindRequest { name: "alice".into() }).decode();
    assert_eq!(found.user, first.user);
    assert_eq!(client.call(&FIND, phone(9), &pb::FindRequest { name: "bob".into() }).code, Code::NotFound);

    backend.restart();
    let mut client = Client::connect(backend.addr());
    let later: pb::TokenReply = log_in(&mut client, "alice", "correct horse").decode();
    assert_eq!(later.user, first.user);
}

#[test]
fn names_and_passwords_out_of_bounds_are_told() {
    let backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    for name in ["", "ab", "Alice", "a b", "naïve"] {
        assert_eq!(sign_up(&mut client, name, "correct horse").code, Code::Invalid, "{name}");
        assert_eq!(log_in(&mut client, name, "correct horse").code, Code::Invalid, "{name}");
    }
    for password in ["", "1234567", &"x".repeat(129)] {
        assert_eq!(sign_up(&mut client, "alice", password).code, Code::Invalid, "{password}");
    }
}

#[test]
fn many_sign_ups_at_once_give_each_name_one_user() {
    let backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    let request =
        pb::SignUpRequest { name: "alice".into(), password: "correct horse".into(), ..Default::default() };
    let calls: Vec<u64> = (0..6).map(|_| client.begin(&SIGN_UP, None, &request)).collect();
    let mut users = Vec::new();
    for call in calls {
        let reply = client.wait(call);
        // The name is being taken: that may be told instead, with when to try again.
        if reply.code == Code::Overloaded {
            assert!(reply.retry_after_ms.is_some());
        } else {
            users.push(reply.decode::<pb::TokenReply>().user);
        }
    }
    let again: pb::TokenReply = sign_up(&mut client, "alice", "correct horse").decode();
    assert!(!users.is_empty() && users.iter().all(|&user| user == again.user), "{users:?}");
}

#[test]
fn a_flood_of_sign_ups_is_refused_and_stalls_nothing_else() {
    let backend = Backend::start_with(|config| config.password_workers = 1);
    let mut client = Client::connect(backend.addr());
    let calls: Vec<u64> = (0..200)
        .map(|n| {
            let request = pb::SignUpRequest {
                name: format!("user{n}"),
                password: "correct horse".into(),
                ..Default::default()
            };
            client.begin(&SIGN_UP, None, &request)
        })
        .collect();
    let echo = client.begin(&echo::SAY, None, &pb::EchoRequest::default());
    assert_eq!(client.wait(echo).code, Code::Ok);
    // One worker needs seconds for what is queued: most of it is still to come, or was refused at once.
    let replies: Vec<Reply> = calls.into_iter().map(|call| client.wait(call)).collect();
    let refused = replies.iter().filter(|reply| reply.code == Code::Overloaded).count();
    assert!(replies.iter().any(|reply| reply.code == Code::Ok));
    assert!(refused >= 100, "{refused} refused");
    for reply in replies.iter().filter(|reply| reply.code == Code::Overloaded) {
        assert_eq!(reply.retry_after_ms, Some(2_000));
    }
    assert_eq!(backend.metric("moorgate_backend_hashes_refused_total"), refused as u64);
}
