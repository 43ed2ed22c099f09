//! All kinds of fields go there and back, and enums may grow.

use crate::messages::{choices, full};
use codegen_sample::pb::{Everything, OfLastYear, OfThisYear, of_last_year, of_this_year};
use proto_wire::prost::Message;

#[test]
fn every_kind_of_field_goes_there_and_back() {
    for choice in choices() {
        let sent = full(choice);
        let read = Everything::decode(sent.encode_to_vec().as_slice()).expect("its own bytes");
        assert_eq!(read, sent);
    }
}

#[test]
fn what_is_not_set_takes_no_byte_and_is_not_there() {
    assert!(Everything::default().encode_to_vec().is_empty());
    let read = Everything::decode(&[][..]).expect("nothing is a message");
    assert_eq!((read.maybe_int32, read.maybe_string, read.choice, read.nested), (None, None, None, None));
    // An optional field that holds its default is sent.
    let zero = Everything { maybe_int32: Some(0), ..Everything::default() };
    assert_eq!(zero.encode_to_vec(), [0xa0, 0x01, 0]);
}

#[test]
fn the_last_of_a_field_that_comes_twice_holds_and_messages_are_merged() {
    let first = Everything { an_int32: 1, nested: Some(crate::messages::nested(1)), ..Everything::default() };
    let mut second =
        Everything { an_int32: 2, nested: Some(crate::messages::nested(2)), ..Everything::default() };
    second.nested.as_mut().expect("set").deep = None;
    let bytes = [first.encode_to_vec(), second.encode_to_vec()].concat();
    let read = Everything::decode(bytes.as_slice()).expect("two in a row");
    let nested = read.nested.expect("set");
    assert_eq!((read.an_int32, nested.number, nested.deep), (2, 2, crate::messages::nested(1).deep));
}

#[test]
fn a_value_that_an_older_program_does_not_know_is_kept_and_sent_on() {
    let dark = of_this_year::Shade::Dark.into();
    let new = OfThisYear { shade: dark, shades: vec![1, dark], new_field: "new".into() };
    let old = OfLastYear::decode(new.encode_to_vec().as_slice()).expect("an unknown field is skipped");
    assert_eq!((old.shade, &old.shades[..]), (7, &[1, 7][..]));
    assert!(of_last_year::Shade::try_from(old.shade).is_err());
    let back = OfThisYear::decode(old.encode_to_vec().as_slice()).expect("fine");
    assert_eq!(back.shade(), of_this_year::Shade::Dark);
    assert_eq!(back.shades, new.shades);
}

#[test]
fn bytes_share_the_buffer_that_they_came_in() {
    let sent = Everything { some_bytes: vec![7; 4096].into(), ..Everything::default() };
    let buffer = proto_wire::bytes::Bytes::from(sent.encode_to_vec());
    let read = Everything::decode(buffer.clone()).expect("its own bytes");
    assert!(buffer.as_ptr_range().contains(&read.some_bytes.as_ptr()));
}

#[test]
fn malformed_bytes_are_errors() {
    for bytes in [&[0x0f][..], &[0x72, 5, b'a'], &[0x72, 1, 0xff], &[0x82, 0x94]] {
        assert!(Everything::decode(bytes).is_err(), "{bytes:?}");
    }
}
