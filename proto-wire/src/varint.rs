//! Unsigned LEB128, shortest form only: a value has one encoding, so a signature or a vector has one too.

use thiserror::Error;

/// What can be wrong with a varint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VarintError {
    #[error("a varint is longer than its value needs")]
    Overlong,
    #[error("a varint is larger than its field")]
    TooLarge,
}

/// Appends `value`.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads one varint of at most `max_bytes` from the front. `Ok(None)` when bytes are missing.
pub fn read(input: &[u8], max_bytes: usize) -> Result<Option<(u64, usize)>, VarintError> {
    let mut value = 0u64;
    for (at, &byte) in input.iter().take(max_bytes).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if at == 9 && bits > 1 {
            return Err(VarintError::TooLarge);
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            if byte == 0 && at > 0 {
                return Err(VarintError::Overlong);
            }
            return Ok(Some((value, at + 1)));
        }
    }
    if input.len() >= max_bytes { Err(VarintError::TooLarge) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_put_is_read(value: u64) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(read(&out, 10), Ok(Some((value, out.len()))));
            for cut in 0..out.len() {
                prop_assert_eq!(read(&out[..cut], 10), Ok(None));
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>, max in 1usize..=10) {
            let _ = read(&bytes, max);
        }
    }

    #[test]
    fn one_encoding_a_value() {
        assert_eq!(read(&[0x80, 0x00], 10), Err(VarintError::Overlong));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0x01], 3), Err(VarintError::TooLarge));
        assert_eq!(read(&[0xff; 10], 10), Err(VarintError::TooLarge));
    }
}
