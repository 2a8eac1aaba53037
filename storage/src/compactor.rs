//! Log compaction by key (KIP-58, KIP-354, KIP-534): of the records with one key, the latest stays.
//!
//! A *pass* over a partition looks at what is dirty, which is what no pass has seen yet, and notes
//! the latest offset of every key ([`keys`]); then it goes from the log start offset to the end of
//! what it has noted and takes out what is superseded ([`filter`]); what is left is laid into new
//! blocks ([`pack`]). All of that is pure.
//!
//! - **COMPACT-1** the latest value of a key stays, at its offset, with its bytes.
//! - **COMPACT-2** what a tombstone deleted does not come back: a tombstone goes only when a pass
//!   that saw it has taken out all that was older.
//! - **COMPACT-3** the end of the log is always a batch, be it an empty one, or consumers that read
//!   to the end would wait there for ever.
//! - **COMPACT-4** the marker of an aborted transaction stays as long as the transaction is named to
//!   consumers: they wait for it.

pub mod filter;
pub mod keys;
pub mod pack;

#[cfg(test)]
mod tests;
