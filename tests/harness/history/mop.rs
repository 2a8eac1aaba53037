//! A step of an operation, in the shape of `jepsen.tests.kafka`.

use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A step of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mop {
    /// `["send", key, value]`, and once it is done `["send", key, [offset, value]]`.
    Send {
        /// "topic/partition".
        key: String,
        /// Unique in the run.
        value: i64,
        /// Where it stands; none while that is not known.
        offset: Option<i64>,
    },
    /// `["poll"]`, and once it is done `["poll", {key: [[offset, value], …]}]`.
    Poll(Polled),
}

/// Offsets and values that a poll returned, in its order, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polled(pub Vec<(String, Vec<(i64, i64)>)>);

impl Serialize for Mop {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Send { key, value, offset: None } => ("send", key, value).serialize(serializer),
            Self::Send { key, value, offset } => {
                ("send", key, (offset, value)).serialize(serializer)
            }
            Self::Poll(polled) => {
                let mut seq = serializer.serialize_seq(None)?;
                seq.serialize_element("poll")?;
                if !polled.0.is_empty() {
                    seq.serialize_element(polled)?;
                }
                seq.end()
            }
        }
    }
}

impl Serialize for Polled {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, values) in &self.0 {
            map.serialize_entry(key, values)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Mop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Reader)
    }
}

impl<'de> Deserialize<'de> for Polled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PolledReader)
    }
}

/// What is sent: a value, or where it stands and the value.
#[derive(Deserialize)]
#[serde(untagged)]
enum Sent {
    Value(i64),
    Placed(Option<i64>, i64),
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Mop;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(r#"["send", key, value or [offset, value]] or ["poll", {…}]"#)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Mop, A::Error> {
        let name: String = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let mop = match name.as_str() {
            "send" => {
                let key = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
                let sent = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(2, &self))?;
                let (offset, value) = match sent {
                    Sent::Value(value) => (None, value),
                    Sent::Placed(offset, value) => (offset, value),
                };
                Mop::Send { key, value, offset }
            }
            "poll" => {
                let polled: Option<Option<Polled>> = seq.next_element()?;
                Mop::Poll(polled.flatten().unwrap_or_default())
            }
            other => return Err(A::Error::unknown_variant(other, &["send", "poll"])),
        };
        match seq.next_element::<IgnoredAny>()? {
            None => Ok(mop),
            Some(_) => Err(A::Error::custom("a step has more than it should")),
        }
    }
}

struct PolledReader;

impl<'de> Visitor<'de> for PolledReader {
    type Value = Polled;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("{key: [[offset, value], …]}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Polled, A::Error> {
        let mut polled = Vec::new();
        while let Some(entry) = map.next_entry()? {
            polled.push(entry);
        }
        Ok(Polled(polled))
    }
}
