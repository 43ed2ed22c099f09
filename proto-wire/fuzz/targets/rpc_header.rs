//! Any bytes as RPC frames: what is read can be written, and reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_wire::rpc::header::next_header;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((header, header_bytes))) = next_header(rest) {
        let end = header_bytes + header.body_bytes as usize;
        let body = &rest[header_bytes..end];
        assert!(
            next_header(&rest[..end - 1]).is_ok_and(|read| read.is_none()),
            "a frame that is cut is no frame"
        );
        let mut out = Vec::new();
        header.put(body, &mut out);
        let (again, again_bytes) = next_header(&out).expect("our own header").expect("whole");
        assert_eq!((again, &out[again_bytes..]), (header, body));
        rest = &rest[end..];
    }
});
