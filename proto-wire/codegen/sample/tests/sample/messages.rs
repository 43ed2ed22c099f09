//! Messages with every field set, alike each time.

use std::collections::HashMap;

use codegen_sample::pb::everything::nested::Deep;
use codegen_sample::pb::everything::nested::deep::Mood;
use codegen_sample::pb::everything::{Choice, Nested};
use codegen_sample::pb::{Color, Everything};
use proto_wire::bytes::Bytes;

pub fn nested(number: i32) -> Nested {
    let deep = Deep { text: format!("deep {number} \u{1f30a}"), mood: Mood::Gloomy.into() };
    Nested { number, deep: Some(deep) }
}

/// All arms of the oneof, and none.
pub fn choices() -> Vec<Option<Choice>> {
    vec![
        None,
        Some(Choice::AsText("a text".into())),
        // What equals the default is there all the same.
        Some(Choice::AsText(String::new())),
        Some(Choice::AsNested(nested(-5))),
        Some(Choice::AsNumber(i32::MIN)),
        Some(Choice::AsBytes(Bytes::from_static(&[0, 255, 128]))),
        Some(Choice::AsColor(Color::Blue.into())),
        Some(Choice::AsNothing(())),
    ]
}

/// Everything, with the bounds of all numbers.
pub fn full(choice: Option<Choice>) -> Everything {
    let inner = Everything { a_string: "inner".into(), color: Color::Red.into(), ..Everything::default() };
    Everything {
        a_double: f64::MIN_POSITIVE,
        a_float: -1.5e30,
        an_int32: i32::MIN,
        an_int64: i64::MIN,
        a_uint32: u32::MAX,
        a_uint64: u64::MAX,
        a_sint32: i32::MIN,
        a_sint64: i64::MAX,
        a_fixed32: u32::MAX,
        a_fixed64: u64::MAX,
        a_sfixed32: -1,
        a_sfixed64: i64::MIN,
        a_bool: true,
        a_string: "h\u{e9}llo \0 \u{10ffff}".into(),
        some_bytes: Bytes::from((0..=255).collect::<Vec<u8>>()),
        maybe_int32: Some(0),
        maybe_string: Some(String::new()),
        maybe_bytes: Some(Bytes::new()),
        maybe_color: Some(Color::Unknown.into()),
        maybe_bool: Some(false),
        packed: vec![0, -1, i32::MAX, i32::MIN],
        not_packed: vec![0, -1, i64::MIN],
        words: vec!["".into(), "two".into()],
        blobs: vec![Bytes::new(), Bytes::from_static(b"\xff")],
        nested_list: vec![Nested::default(), nested(1)],
        colors: vec![Color::Unknown.into(), Color::Blue.into()],
        doubles: vec![0.0, -0.5, f64::MAX],
        by_name: HashMap::from([("".into(), 0), ("low".into(), i64::MIN)]),
        by_number: HashMap::from([(0, Nested::default()), (-7, nested(7))]),
        by_truth: HashMap::from([(true, Color::Green.into()), (false, 0)]),
        by_signed: HashMap::from([(i64::MIN, Bytes::from_static(b"m")), (0, Bytes::new())]),
        color: Color::Green.into(),
        nested: Some(nested(i32::MAX)),
        inner: Some(Box::new(inner)),
        mood: Mood::Gloomy.into(),
        at: Some(prost_types::Timestamp { seconds: 1_764_000_000, nanos: 999_999_999 }),
        r#type: "a keyword".into(),
        r#match: 3,
        self_: true,
        last: 7,
        choice,
    }
}
