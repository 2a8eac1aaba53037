//! The language of the config tables: definitions, checks, values as clients see them.

/// Type numbers of DescribeConfigs (KIP-226).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigType {
    /// true or false.
    Boolean,
    /// Text.
    Text,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    /// A fraction.
    Double,
    /// Values joined by commas.
    List,
}

impl ConfigType {
    /// The number on the wire.
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::Text => 2,
            Self::Int => 3,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
        }
    }
}

/// Where a value comes from, by its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Set on the topic.
    Topic,
    /// Set on the group.
    Group,
    /// Set on this broker while it ran.
    Broker,
    /// Set on all brokers while they ran.
    Cluster,
    /// Given when the broker was started.
    Static,
    /// Nobody has set it.
    Default,
}

impl Source {
    /// The number on the wire.
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::Group => 8,
            Self::Broker => 2,
            Self::Cluster => 3,
            Self::Static => 4,
            Self::Default => 5,
        }
    }
}

/// What values a config takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Check {
    /// A whole number in this range.
    Integer(i64, i64),
    /// true or false.
    Boolean,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// The default and nothing else, because of this.
    Only(&'static str),
}

/// One config.
#[derive(Debug)]
pub(crate) struct Definition {
    /// Its name, Kafka's.
    pub(crate) name: &'static str,
    /// Its type.
    pub(crate) kind: ConfigType,
    /// Its value if nobody sets it.
    pub(crate) default: &'static str,
    /// What it takes.
    pub(crate) check: Check,
    /// What it does here.
    pub(crate) documentation: &'static str,
}

/// A config that takes its default and nothing else, because of `why`.
pub(crate) const fn only(
    name: &'static str,
    kind: ConfigType,
    default: &'static str,
    why: &'static str,
) -> Definition {
    Definition { name, kind, default, check: Check::Only(why), documentation: why }
}

impl Definition {
    /// Whether the config takes `value`; if not, a sentence.
    pub(crate) fn accepts(&self, value: &str) -> Result<(), String> {
        let refuse = |what: String| Err(format!("{} = {value:?}: {what}", self.name));
        let value = value.trim();
        match self.check {
            Check::Integer(least, most) => match value.parse::<i64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(()),
                _ => refuse(format!("takes a whole number from {least} to {most}")),
            },
            Check::Boolean if value == "true" || value == "false" => Ok(()),
            Check::Boolean => refuse("takes true or false".to_owned()),
            Check::OneOf(words) if words.contains(&value) => Ok(()),
            Check::OneOf(words) => refuse(format!("takes one of: {}", words.join(", "))),
            Check::Only(_) if value == self.default => Ok(()),
            Check::Only(why) => refuse(format!("takes only {:?}: {why}", self.default)),
        }
    }
}

/// Looks a config up in a table.
pub(crate) fn find(table: &'static [Definition], name: &str) -> Option<&'static Definition> {
    table.iter().find(|definition| definition.name == name)
}

/// Checks one config to be set; if it can't be, a sentence.
pub(crate) fn validate(
    table: &'static [Definition],
    name: &str,
    value: Option<&str>,
) -> Result<(), String> {
    let definition =
        find(table, name).ok_or_else(|| format!("{name} is not a config of this resource"))?;
    match value {
        Some(value) => definition.accepts(value),
        None => Err(format!("{name} needs a value")),
    }
}
