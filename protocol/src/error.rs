//! Why bytes from a client were not understood.

/// A fact about bytes that are not what the protocol says. The connection they came on is closed:
/// there is no telling where the next request begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A frame announces less than a header takes.
    #[error("frame of {0} bytes")]
    FrameLength(i32),
    /// A frame announces more than is taken.
    #[error("frame of {announced} bytes, at most {limit} are taken")]
    FrameTooLong {
        /// What it announces.
        announced: usize,
        /// What is taken.
        limit: usize,
    },
    /// Not Kafka at all.
    #[error("{0} on a plain Kafka port")]
    OtherProtocol(&'static str),
    /// The bytes end before the message does.
    #[error("message ends early")]
    Truncated,
    /// A length, a count or a tag that can't be.
    #[error("length, count or tag that can't be")]
    Length,
    /// More elements than any client sends.
    #[error("more than {0} elements in one request")]
    TooManyElements(usize),
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    Text,
    /// A request of a kind that is not served.
    #[error("api key {0} is not served")]
    UnknownApi(i16),
    /// A version that is not served.
    #[error("version {version} of api key {api} is not served")]
    UnsupportedVersion {
        /// The api key.
        api: i16,
        /// The version asked for.
        version: i16,
    },
    /// The message decoder refused it.
    #[error("malformed: {0}")]
    Malformed(String),
}
