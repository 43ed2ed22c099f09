//! Any bytes as a page of changes: what decodes is encoded to bytes that decode to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use proto_wire::pb::Page;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(page) = Page::decode(bytes) {
        let again = Page::decode(&page.encode_to_vec()[..]).expect("our own page");
        assert_eq!(again, page);
    }
});
