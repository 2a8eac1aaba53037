//! Zigzag varints, as records have them.

/// Takes a number of up to 64 bits; `None` if there is none.
pub(super) fn take(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            let magnitude = i64::try_from(value >> 1).ok()?;
            return Some(if value & 1 == 0 { magnitude } else { -magnitude - 1 });
        }
    }
    None
}

/// Bytes that a number takes.
pub(super) fn length(value: i64) -> usize {
    let mut zigzag = zigzag(value) >> 7;
    let mut length = 1;
    while zigzag > 0 {
        zigzag >>= 7;
        length += 1;
    }
    length
}

/// Writes a number.
pub(super) fn put(value: i64, out: &mut Vec<u8>) {
    let mut zigzag = zigzag(value);
    loop {
        let low = u8::try_from(zigzag & 0x7f).expect("seven bits");
        zigzag >>= 7;
        if zigzag == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(value: i64) {
        let mut out = Vec::new();
        put(value, &mut out);
        assert_eq!(out.len(), length(value));
        let mut rest = &out[..];
        assert_eq!((take(&mut rest), rest.len()), (Some(value), 0));
    }

    #[test]
    fn the_edges_keep_their_values() {
        [0, -1, 1, 63, 64, -64, -65, i64::MAX, i64::MIN].into_iter().for_each(round);
    }

    #[test]
    fn more_than_64_bits_are_no_number() {
        let mut long = &[0xff; 11][..];
        assert_eq!(take(&mut long), None);
        let mut wide = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..];
        assert_eq!(take(&mut wide), None);
        assert_eq!(take(&mut &[0x80][..]), None);
    }

    proptest! {
        #[test]
        fn every_number_keeps_its_value(value: i64) {
            round(value);
        }
    }
}
