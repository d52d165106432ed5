//! A run as a picture: one HTML file without any network access, or a file for ShiViz or Perfetto.

mod perfetto;
mod shiviz;

use crate::config::SimConfig;
use crate::trace::{TraceEvent, TraceKind};
use std::fmt::Write as _;

pub use perfetto::perfetto;
pub use shiviz::shiviz;

/// What the picture is of.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// What happened, in order.
    pub trace: &'a [TraceEvent],
    /// What the run is called.
    pub title: &'a str,
    /// What was found, if anything.
    pub verdict: &'a str,
    /// Number of nodes.
    pub nodes: u64,
}

/// Most characters of an event's words.
const TEXT_MAX: usize = 300;

/// The page, with a place for the data.
const PAGE: &str = include_str!("show/page.html");

/// One self-contained HTML page: a space-time diagram to zoom and to move in.
pub fn html(picture: &Picture<'_>) -> String {
    let mut data = String::from("{");
    let _ = write!(
        data,
        "\"title\":{},\"verdict\":{},\"nodes\":{},\"tick\":{},\"kinds\":[",
        quoted(picture.title),
        quoted(picture.verdict),
        picture.nodes,
        SimConfig::TICK
    );
    let names = KINDS.map(|kind| quoted(kind.name()));
    data.push_str(&names.join(","));
    data.push_str("],\"events\":[\n");
    for (number, event) in picture.trace.iter().enumerate() {
        if number > 0 {
            data.push_str(",\n");
        }
        let kind = KINDS
            .iter()
            .position(|kind| *kind == event.kind)
            .unwrap_or(0);
        let _ = write!(
            data,
            "[{},{},{},{},{},{},{}]",
            event.at,
            event.node.unwrap_or(0),
            kind,
            event.message.unwrap_or(0),
            event.peer.unwrap_or(0),
            event.value,
            quoted(&event.text)
        );
    }
    data.push_str("\n]}");
    PAGE.replacen("/*DATA*/null", &data, 1)
}

/// The kinds, by the numbers that the page knows them by.
const KINDS: [TraceKind; 14] = [
    TraceKind::Sent,
    TraceKind::Lost,
    TraceKind::Arrived,
    TraceKind::Written,
    TraceKind::Synced,
    TraceKind::Failed,
    TraceKind::Crashed,
    TraceKind::Started,
    TraceKind::Role,
    TraceKind::Term,
    TraceKind::Commit,
    TraceKind::Fault,
    TraceKind::Client,
    TraceKind::Detail,
];

/// A JSON string that may also stand inside a script of a page. Long ones are cut.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for (count, c) in text.chars().enumerate() {
        if count == TEXT_MAX {
            out.push('…');
            break;
        }
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '<' | '>' | '&' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(trace: &[TraceEvent]) -> Picture<'_> {
        Picture {
            trace,
            title: "a run",
            verdict: "</script><b>\"no\"</b>",
            nodes: 2,
        }
    }

    fn trace() -> Vec<TraceEvent> {
        let event = |at, host, kind| TraceEvent {
            at,
            ..TraceEvent::new(kind, "words").host(host)
        };
        vec![
            event(0, 0, TraceKind::Started),
            event(0, 1, TraceKind::Started),
            event(5, 0, TraceKind::Role).value(2),
            event(10, 0, TraceKind::Sent).message(1, 1),
            event(14, 1, TraceKind::Arrived).message(1, 0),
            event(15, 1, TraceKind::Written).value(3),
            event(20, 1, TraceKind::Synced),
            event(21, 1, TraceKind::Commit).value(7),
            event(30, 0, TraceKind::Crashed),
        ]
    }

    #[test]
    fn nothing_in_the_data_ends_the_script() {
        let page = html(&picture(&trace()));
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(page.contains(r"\u003c/script\u003e"));
        assert!(!page.contains("/*DATA*/"));
        assert!(
            !page.contains("http://") && !page.contains("https://"),
            "no network"
        );
    }

    #[test]
    fn shiviz_orders_an_arrival_behind_its_message() {
        let text = shiviz(&picture(&trace()));
        let arrival = text
            .lines()
            .find(|line| line.contains("arrived"))
            .expect("there is one");
        assert!(arrival.starts_with("node2 {"), "{arrival}");
        // Three events of node 1 came before, the sending included.
        assert!(
            arrival.contains("\"node1\":3") && arrival.contains("\"node2\":2"),
            "{arrival}"
        );
    }

    #[test]
    fn perfetto_has_flows_lives_and_counters() {
        let text = perfetto(&picture(&trace()));
        for wanted in [
            r#""ph":"s""#,
            r#""ph":"f""#,
            r#""ph":"X""#,
            r#""ph":"C""#,
            r#""ph":"i""#,
        ] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
