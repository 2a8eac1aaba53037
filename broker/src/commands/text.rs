//! Documents as text: what is printed where nobody asked for JSON.

use serde_json::{Map, Value};

/// A number of bytes as people read it.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        None => format!("{bytes} bytes"),
        Some((name, unit)) => {
            let tenths = bytes / unit * 10 + bytes % unit * 10 / unit;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

/// A time as ISO 8601 has it, from milliseconds since the Unix epoch; nothing for a negative one.
pub(super) fn time(ms: i64) -> Value {
    if ms < 0 {
        return Value::Null;
    }
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, ms) = (of_day / 1000 % 60, of_day % 1000);
    let (year, month, day) = date(days);
    Value::String(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"
    ))
}

/// Year, month and day, so many days after 1970-01-01: eras of 400 years that begin in March.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// An object as lines of names and values; lists of objects become tables.
pub(super) fn render(document: &Map<String, Value>) -> String {
    let mut out = String::new();
    render_object(&mut out, document, 0);
    out
}

fn put(out: &mut String, indent: usize, line: &str) {
    out.extend(std::iter::repeat_n(' ', indent));
    out.push_str(line);
    out.push('\n');
}

fn render_object(out: &mut String, object: &Map<String, Value>, indent: usize) {
    for (name, value) in object {
        let name = name.replace('_', " ");
        match value {
            Value::Null => {}
            Value::Object(inner) => {
                if !inner.is_empty() {
                    put(out, indent, &format!("{name}:"));
                    render_object(out, inner, indent + 2);
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                put(out, indent, &format!("{name} ({}):", items.len()));
                render_list(out, items, indent + 2);
            }
            Value::Array(items) if items.is_empty() => {}
            _ => put(out, indent, &format!("{name}: {}", plain(value))),
        }
    }
}

fn render_list(out: &mut String, items: &[Value], indent: usize) {
    let is_flat = |value: &Value| match value {
        Value::Object(_) => false,
        Value::Array(items) => !items.iter().any(Value::is_object),
        _ => true,
    };
    let objects: Vec<&Map<String, Value>> = items.iter().filter_map(Value::as_object).collect();
    if objects.iter().all(|object| object.values().all(is_flat)) {
        render_table(out, &objects, indent);
        return;
    }
    for object in objects {
        // What is flat stands in one line, the rest below it.
        let (flat, deep): (Vec<_>, Vec<_>) = object.iter().partition(|(_, value)| is_flat(value));
        let told = flat.iter().filter(|(_, value)| !plain(value).is_empty());
        let told: Vec<String> = told
            .map(|(name, value)| format!("{} {}", name.replace('_', " "), plain(value)))
            .collect();
        put(out, indent, &told.join(", "));
        let deep = deep.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        render_object(out, &deep, indent + 2);
    }
}

/// Columns that are empty throughout are left out.
fn render_table(out: &mut String, rows: &[&Map<String, Value>], indent: usize) {
    let mut columns: Vec<&String> = Vec::new();
    for name in rows.iter().flat_map(|row| row.keys()) {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    let cell =
        |row: &Map<String, Value>, name: &String| row.get(name).map_or_else(String::new, plain);
    columns.retain(|name| rows.iter().any(|row| !cell(row, name).is_empty()));
    let is_number = |name: &String| {
        rows.iter().filter_map(|row| row.get(name)).all(|it| it.is_number() || it.is_null())
    };
    let width = |name: &&String| {
        let cells = rows.iter().map(|row| cell(row, name).chars().count());
        cells.max().unwrap_or(0).max(name.chars().count())
    };
    let widths: Vec<usize> = columns.iter().map(width).collect();
    let mut line = |cells: Vec<String>| {
        let padded = cells.into_iter().zip(&widths).zip(&columns).map(|((cell, width), name)| {
            if is_number(name) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        let text = padded.collect::<Vec<_>>().join("  ");
        put(out, indent, text.trim_end());
    };
    line(columns.iter().map(|name| name.replace('_', " ")).collect());
    for row in rows {
        line(columns.iter().map(|name| cell(row, name)).collect());
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(ms), Value::String(text.to_owned()));
        }
        assert_eq!(time(-1), Value::Null);
    }

    #[test]
    fn bytes_are_rounded_down() {
        for (number, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn lists_of_objects_are_tables_and_nothing_is_left_unsaid() {
        let document = json!({
            "name": "orders",
            "nothing": null,
            "is_good": true,
            "tags": ["a", "b"],
            "rows": [{"at": 5, "what": "long text"}, {"at": 1000, "what": null, "none": null}],
            "deep": [{"at": 1, "inner": [{"x": 1}]}],
        });
        let text = render(document.as_object().unwrap());
        let expected = "name: orders
is good: yes
tags: a, b
rows (2):
    at  what
     5  long text
  1000
deep (1):
  at 1
    inner (1):
      x
      1
";
        assert_eq!(text, expected);
    }
}
