//! A page of metrics in the text format of Prometheus (version 0.0.4), as it is written.

use std::fmt::{Display, Write};

use odradek_storage::counts::Distribution;

/// How the page is called in HTTP.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Names and values of labels.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// The page so far.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

/// A metric, to which samples are added.
pub(super) struct Metric<'a> {
    page: &'a mut Page,
    name: &'a str,
}

impl Page {
    /// A metric that goes up and down.
    pub(super) fn gauge<'a>(&'a mut self, name: &'a str, help: &str) -> Metric<'a> {
        self.metric(name, help, "gauge")
    }

    /// A metric that only grows while the process lives. Its name ends in `_total`.
    pub(super) fn counter<'a>(&'a mut self, name: &'a str, help: &str) -> Metric<'a> {
        self.metric(name, help, "counter")
    }

    /// A metric of durations. Its name ends in `_seconds`.
    pub(super) fn histogram<'a>(&'a mut self, name: &'a str, help: &str) -> Metric<'a> {
        self.metric(name, help, "histogram")
    }

    /// All that was written.
    pub(super) fn finish(self) -> String {
        self.text
    }

    fn metric<'a>(&'a mut self, name: &'a str, help: &str, kind: &str) -> Metric<'a> {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        Metric { page: self, name }
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.text, "{line}").expect("a string takes every line");
    }
}

impl Metric<'_> {
    /// The only sample of a metric.
    pub(super) fn is(mut self, value: impl Display) {
        self.sample("", &[], value);
    }

    /// A sample among others.
    pub(super) fn with(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.sample("", labels, value);
        self
    }

    /// The samples of a histogram.
    pub(super) fn durations(&mut self, labels: Labels<'_>, durations: &Distribution) -> &mut Self {
        let count = durations.count;
        let bounds = durations.up_to.iter();
        let bounds = bounds.map(|(bound, up_to)| (bound.as_secs_f64().to_string(), *up_to));
        for (bound, up_to) in bounds.chain([("+Inf".to_owned(), count)]) {
            self.sample("_bucket", &[labels, &[("le", bound.as_str())]].concat(), up_to);
        }
        self.sample("_sum", labels, durations.sum.as_secs_f64());
        self.sample("_count", labels, count);
        self
    }

    fn sample(&mut self, suffix: &str, labels: Labels<'_>, value: impl Display) {
        let name = self.name;
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        match labels.as_slice() {
            [] => self.page.line(format_args!("{name}{suffix} {value}")),
            labels => {
                let labels = labels.join(",");
                self.page.line(format_args!("{name}{suffix}{{{labels}}} {value}"));
            }
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use odradek_storage::counts::Durations;

    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let durations = Durations::default();
        durations.add(Duration::from_millis(1500));
        durations.add(Duration::from_secs(60));
        let mut page = Page::default();
        page.gauge("lag_seconds", "How late.").is(0.25);
        page.counter("told_total", "What was told.")
            .with(&[("by", "a \"b\" \\ c\n"), ("to", "")], 7)
            .with(&[], u64::MAX);
        page.histogram("took_seconds", "How long.").durations(&[("api", "X")], &durations.read());
        let text = page.finish();
        let (head, tail) = text.split_once("took_seconds_bucket").expect("a histogram");
        assert_eq!(
            head,
            "# HELP lag_seconds How late.\n# TYPE lag_seconds gauge\nlag_seconds 0.25\n\
             # HELP told_total What was told.\n# TYPE told_total counter\n\
             told_total{by=\"a \\\"b\\\" \\\\ c\\n\",to=\"\"} 7\ntold_total 18446744073709551615\n\
             # HELP took_seconds How long.\n# TYPE took_seconds histogram\n"
        );
        assert!(tail.starts_with("{api=\"X\",le=\"0.001\"} 0\n"), "{tail}");
        let end = "took_seconds_bucket{api=\"X\",le=\"1\"} 0\n\
                   took_seconds_bucket{api=\"X\",le=\"2.5\"} 1\n\
                   took_seconds_bucket{api=\"X\",le=\"5\"} 1\n\
                   took_seconds_bucket{api=\"X\",le=\"10\"} 1\n\
                   took_seconds_bucket{api=\"X\",le=\"30\"} 1\n\
                   took_seconds_bucket{api=\"X\",le=\"+Inf\"} 2\n\
                   took_seconds_sum{api=\"X\"} 61.5\ntook_seconds_count{api=\"X\"} 2\n";
        assert!(tail.ends_with(end), "{tail}");
    }
}
