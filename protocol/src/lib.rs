//! What is said: the Kafka wire protocol as bytes, without sockets, tasks or clocks.
//!
//! From the outside in: [`frame`] cuts a stream into requests and reads their headers, [`bounds`]
//! checks that a body's lengths and counts fit into its bytes, [`request`] and [`response`] turn
//! bodies into messages and back, [`record`] looks at record batches in place and [`compression`]
//! opens them. [`api`] is the one table of what is spoken in which versions. The messages
//! themselves come from the `kafka-protocol` crate and are named through [`messages`].

pub use kafka_protocol::error::ResponseError;
pub use kafka_protocol::messages;
pub use kafka_protocol::protocol::StrBytes;

pub mod api;
pub mod bounds;
pub mod compression;
pub mod error;
pub mod fetch_response;
pub mod frame;
pub mod id;
pub mod record;
pub mod request;
pub mod response;
