//! What is promised of memory and work: both in proportion to the input.
//!
//! Work is counted in what is allocated, not in time: whoever copies his input again and again
//! allocates again and again.

use allocation_counter::{AllocationInfo, measure};

/// Bytes held at once for each byte of input.
const HELD_PER_BYTE: u64 = 8;

/// Bytes that anything may hold.
const HELD_FREE: u64 = 1 << 20;

/// Bytes allocated over time for each byte of input, and in any case.
const ALLOCATED: (u64, u64) = (128, 16 << 20);

/// Runs a decoder on so many bytes of input.
///
/// # Panics
///
/// If it takes more memory than the input warrants.
pub(crate) fn bounded<T>(input: usize, decode: impl FnOnce() -> T) -> T {
    bounded_with(input, 0, decode)
}

/// As [`bounded`], where so many bytes more may be held at once: there is a reason to give where it
/// is called.
pub(crate) fn bounded_with<T>(input: usize, more: u64, decode: impl FnOnce() -> T) -> T {
    let mut decoded = None;
    let AllocationInfo { bytes_max, bytes_total, .. } = measure(|| decoded = Some(decode()));
    let input = u64::try_from(input).unwrap();
    let held_max = HELD_PER_BYTE * input + HELD_FREE + more;
    assert!(bytes_max <= held_max, "{input} bytes made it hold {bytes_max}, more than {held_max}");
    let total_max = ALLOCATED.0 * input + ALLOCATED.1 + 8 * more;
    assert!(
        bytes_total <= total_max,
        "{input} bytes made it allocate {bytes_total} in all, more than {total_max}"
    );
    decoded.unwrap()
}
