//! The cluster's identity, and others, as clients see them.

use odradek_storage::state::State;
use uuid::Uuid;

/// The cluster's identity.
pub(crate) fn cluster_id(state: &State) -> String {
    as_kafka_writes_it(state.cluster_id())
}

/// Sixteen bytes in base64url without padding.
pub(crate) fn as_kafka_writes_it(id: Uuid) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let number = id.as_u128();
    let digit = |index: u32| {
        // 22 digits of 6 bits hold 132: the last one has four zeros at its end.
        let shifted = if index == 21 { number << 4 } else { number >> (128 - 6 * (index + 1)) };
        let value = usize::try_from(shifted & 63).unwrap_or(0);
        char::from(DIGITS[value])
    };
    (0..22).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::state_of_cluster;

    #[test]
    fn an_id_is_written_as_kafka_writes_it() {
        let id = Uuid::parse_str("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        let state = state_of_cluster(id, Vec::new());
        assert_eq!(cluster_id(&state), "ABEiM0RVZneImaq7zN3u_w");
    }
}
