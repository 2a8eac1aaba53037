//! The rules, what each says, and whether it may be broken.

use serde::{Deserialize, Serialize};

/// What may happen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It must not happen.
    Never,
    /// Apache Kafka has it as well: compared with what happens there.
    Known,
    /// Kafka does not promise that it can't happen; counted.
    Allowed,
}

macro_rules! rules {
    ($($name:ident $standing:ident $text:literal,)*) => {
        /// A rule that a history may break. Numbers are those of the test plan; `R1` to `R13` ask
        /// the same as `jepsen.tests.kafka`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Rule {
            $(#[doc = $text] $name,)*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What was seen when it is broken.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// Whether it may be broken.
            pub fn standing(self) -> Standing {
                match self { $(Self::$name => Standing::$standing),* }
            }
        }
    };
}

rules! {
    R1 Never "one offset has two values",
    R2 Never "a value of an idempotent producer stands at two offsets",
    R2NotIdempotent Allowed "a value of a producer without idempotence stands at two offsets",
    R3 Never "a value below the highest that was read was never read by anyone",
    R4 Never "an acknowledged value was not read by the end of the final polls",
    R5 Never "a value that was not written or not committed was read",
    R6 Never "a transaction read what it had sent itself",
    R7 Never "values were left out, or read again, within an operation",
    R8 Never "values were left out, or read again, between operations with an assignment",
    R8Subscribed Allowed "values were left out, or read again, between operations of a subscriber",
    R9 Never "a value stands before one that was acknowledged before it was sent",
    R10 Never "values of an operation of an idempotent producer stand in another order",
    R11 Allowed "values of others stand between those of an operation (G0)",
    R12 Never "operations that read what was committed form a cycle of reads and time (G1c)",
    R13 Allowed "operations form a cycle that needs the order of writes (G0, G1c)",
    R14 Never "a transaction is visible in part",
    TV1 Known "a transaction of the old protocol is torn or read though aborted (KAFKA-17754)",
    R15 Never "a pipeline copied a value not exactly once",
    R16 Never "an acknowledged offset is not where the value is read",
    R17 Never "a log's end was told too low or too high",
    R18 Never "a group stands before where it had committed",
    G1 Never "two members of a generation own the same partition",
    G2 Never "a coordinator knew an old generation after the new one",
    G3 Never "a commit of an old generation was accepted",
    W1 Never "a log's bounds are out of order, went back, or were passed by a read",
    I1 Never "something was read where it does not belong",
    RT1 Never "a record was gone before its time",
    L1 Never "no service, slow service, or a broker that ended by itself, after everything healed",
    L2 Never "a reader was not shown an acknowledged value for 10 s though all was well",
    L3 Never "a broker did not serve 30 s after it was started and everything healed",
    P1 Never "sends were slow though the log was not",
}
