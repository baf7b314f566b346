//! Prometheus' two text formats. The library writes OpenMetrics; the classic format, which every Prometheus and promtool
//! read, differs in the head lines of counters, and has neither units nor an end mark.

use std::fmt::{self, Write as _};

use prometheus_client::{encoding::text, registry::Registry};

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The classic text format, version 0.0.4.
    Classic,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that an HTTP Accept header asks for: OpenMetrics only if it is named.
    pub fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Classic,
        }
    }

    /// Its media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The text of a registry.
pub(super) fn encode(registry: &Registry, format: Format) -> Result<String, fmt::Error> {
    let mut open = String::new();
    text::encode(&mut open, registry)?;
    match format {
        Format::OpenMetrics => Ok(open),
        Format::Classic => classic(&open),
    }
}

/// OpenMetrics text as classic text: in it a counter's head lines carry the name of its samples, with `_total`.
fn classic(open: &str) -> Result<String, fmt::Error> {
    let mut out = String::with_capacity(open.len());
    // HELP comes before TYPE, so it waits until the kind is known.
    let mut help = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text)) = help.take() {
                writeln!(out, "# HELP {name}{suffix} {text}")?;
            }
            writeln!(out, "# TYPE {name}{suffix} {kind}")?;
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            writeln!(out, "{line}")?;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_keeps_its_samples_and_gets_their_name() {
        let open = "# HELP a_b Text of it\n# TYPE a_b counter\na_b_total{x=\"1\"} 2\n# HELP s_seconds T\n# TYPE s_seconds gauge\n# UNIT s_seconds seconds\ns_seconds 1.5\n# EOF\n";
        let expected = "# HELP a_b_total Text of it\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 2\n# HELP s_seconds T\n# TYPE s_seconds gauge\ns_seconds 1.5\n";
        assert_eq!(classic(open).unwrap(), expected);
    }

    #[test]
    fn open_metrics_comes_only_when_asked_for() {
        assert_eq!(Format::accepted(None), Format::Classic);
        assert_eq!(Format::accepted(Some("text/plain")), Format::Classic);
        assert_eq!(
            Format::accepted(Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")),
            Format::OpenMetrics
        );
    }
}
