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
    /// -1 for no limit, or a positive number.
    Limit,
    /// true or false.
    Boolean,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Any of these words, joined by commas; or none.
    AnyOf(&'static [&'static str]),
    /// A fraction from 0 to 1.
    Fraction,
    /// What is read when the resource is created, and never altered.
    AtCreation,
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
    /// The value as it is kept and shown, if the config takes it; if not, a sentence.
    pub(crate) fn understand(&self, value: &str) -> Result<String, String> {
        let refuse = |what: String| Err(format!("{} = {value:?}: {what}", self.name));
        let value = value.trim();
        match self.check {
            Check::Integer(least, most) => match value.parse::<i64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(number.to_string()),
                _ => refuse(format!("takes a whole number from {least} to {most}")),
            },
            Check::Limit => match value.parse::<i64>() {
                Ok(number) if number == -1 || number > 0 => Ok(number.to_string()),
                _ => refuse("takes -1 for no limit, or a positive number".to_owned()),
            },
            Check::Boolean if value == "true" || value == "false" => Ok(value.to_owned()),
            Check::Boolean => refuse("takes true or false".to_owned()),
            Check::OneOf(words) if words.contains(&value) => Ok(value.to_owned()),
            Check::OneOf(words) => refuse(format!("takes one of: {}", words.join(", "))),
            Check::AnyOf(words) => {
                let mut understood: Vec<&str> = Vec::new();
                for word in value.split(',').map(str::trim).filter(|_| !value.is_empty()) {
                    if !words.contains(&word) {
                        return refuse(format!("takes any of: {}", words.join(", ")));
                    }
                    if !understood.contains(&word) {
                        understood.push(word);
                    }
                }
                Ok(understood.join(","))
            }
            Check::Fraction => match value.parse::<f64>() {
                Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(format!("{fraction:?}")),
                _ => refuse("takes a number from 0 to 1".to_owned()),
            },
            Check::AtCreation => refuse("is given when the topic is created".to_owned()),
            Check::Only(_) if value == self.default => Ok(value.to_owned()),
            Check::Only(why) => refuse(format!("takes only {:?}: {why}", self.default)),
        }
    }
}

/// Looks a config up in a table.
pub(crate) fn find(table: &'static [Definition], name: &str) -> Option<&'static Definition> {
    table.iter().find(|definition| definition.name == name)
}

/// The value of one config to be set, as it is kept; if it can't be set, a sentence.
pub(crate) fn validate(
    table: &'static [Definition],
    name: &str,
    value: Option<&str>,
) -> Result<String, String> {
    let definition =
        find(table, name).ok_or_else(|| format!("{name} is not a config of this resource"))?;
    match value {
        Some(value) => definition.understand(value),
        None => Err(format!("{name} needs a value")),
    }
}
