//! What is done to a request, and to the listings among the answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use harness::proxy::{Act, Answer};

/// A fault of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    Error,
    SlowDown,
    Forbidden,
    Skewed,
    Closed,
    Lost,
    Hangs,
    Reset,
    Short,
    Altered,
    Half,
    Old,
    Trickles,
    Ahead,
    Behind,
}

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Times {
    Once,
    Always,
}

/// In the order of the page's columns.
pub(super) const FAULTS: [(Fault, &str); 15] = [
    (Fault::Error, "500"),
    (Fault::SlowDown, "503"),
    (Fault::Forbidden, "403"),
    (Fault::Skewed, "skewed"),
    (Fault::Closed, "closed"),
    (Fault::Lost, "answer lost"),
    (Fault::Hangs, "hangs"),
    (Fault::Reset, "reset"),
    (Fault::Short, "short"),
    (Fault::Altered, "altered"),
    (Fault::Half, "half"),
    (Fault::Old, "old"),
    (Fault::Trickles, "trickles"),
    (Fault::Ahead, "a year ahead"),
    (Fault::Behind, "a year behind"),
];

pub(super) const TIMES: [Times; 2] = [Times::Once, Times::Always];

impl Fault {
    /// Whether it can befall such a request: what has no body cannot be altered, what lists nothing cannot be old.
    pub(super) fn applies(self, kind: &str) -> bool {
        let has_body = ["GET ", "LIST"].iter().any(|method| kind.starts_with(method));
        match self {
            Self::Short | Self::Altered => has_body,
            Self::Half | Self::Old => kind.starts_with("LIST"),
            _ => true,
        }
    }

    /// Whether asking again helps, so that a single one may change nothing.
    pub(super) fn is_passing(self) -> bool {
        matches!(
            self,
            Self::Error
                | Self::SlowDown
                | Self::Skewed
                | Self::Closed
                | Self::Lost
                | Self::Hangs
                | Self::Reset
                | Self::Trickles
                | Self::Ahead
                | Self::Behind
        )
    }

    /// Whether it makes a verb ask what it asks nowhere else: for the reason of a refusal, for the clock once more.
    pub(super) fn asks_more(self) -> bool {
        matches!(self, Self::Skewed | Self::Ahead | Self::Behind)
    }

    /// Whether it takes until a limit of time is reached.
    pub(super) fn takes_time(self) -> bool {
        matches!(self, Self::Hangs | Self::Trickles)
    }

    /// What the proxy does. `old`: the keys below `prefix` that an old listing has.
    pub(super) fn act(self, old: &Arc<BTreeSet<String>>, prefix: &str) -> Act {
        let lie = |alter: fn(&mut Answer)| Act::Lie(Arc::new(alter));
        match self {
            Self::Error => Act::Refuse(500, "InternalError"),
            Self::SlowDown => Act::Refuse(503, "SlowDown"),
            Self::Forbidden => Act::Refuse(403, "AccessDenied"),
            Self::Skewed => Act::Refuse(403, "RequestTimeTooSkewed"),
            Self::Closed => Act::Close,
            Self::Lost => Act::Lose,
            Self::Hangs => Act::Hang,
            Self::Reset => Act::Reset,
            Self::Trickles => Act::Trickle(20),
            Self::Short => lie(|answer| answer.body.truncate(answer.body.len() / 2)),
            Self::Altered => lie(|answer| {
                let middle = answer.body.len() / 2;
                if let Some(byte) = answer.body.get_mut(middle) {
                    *byte ^= 1;
                }
            }),
            Self::Half => lie(|answer| {
                let mut n = 0;
                keep(&mut answer.body, |_| {
                    n += 1;
                    n % 2 == 0
                });
            }),
            Self::Old => {
                let (old, prefix) = (Arc::clone(old), format!("{prefix}/"));
                Act::Lie(Arc::new(move |answer| {
                    keep(&mut answer.body, |name| {
                        let name = name.strip_prefix(&prefix).unwrap_or(name);
                        // A folder is there if anything lies in it.
                        old.range(name.to_owned()..).next().is_some_and(|found| found.starts_with(name))
                    });
                }))
            }
            Self::Ahead => lie(|answer| date(answer, chrono::TimeDelta::days(366))),
            Self::Behind => lie(|answer| date(answer, chrono::TimeDelta::days(-366))),
        }
    }
}

fn date(answer: &mut Answer, off: chrono::TimeDelta) {
    for line in &mut answer.head {
        if line.to_ascii_lowercase().starts_with("date:") {
            let wrong = super::super::past::now() + off;
            *line = format!("date: {}", wrong.format("%a, %d %b %Y %H:%M:%S GMT"));
        }
    }
}

/// Leaves those entries in a listing whose key (or folder, with a `/` at its end) is to stay.
fn keep(body: &mut Vec<u8>, mut stays: impl FnMut(&str) -> bool) {
    let text = String::from_utf8_lossy(body).into_owned();
    let (mut out, mut rest) = (String::new(), text.as_str());
    let kinds = ["Contents", "CommonPrefixes", "Version", "DeleteMarker"];
    while let Some((at, kind)) = kinds.iter().filter_map(|kind| Some((rest.find(&format!("<{kind}>"))?, kind))).min() {
        let (begin, end) = (kind.len() + 2 + at, format!("</{kind}>"));
        let Some(length) = rest[begin..].find(&end) else { break };
        let (entry, after) = (&rest[begin..begin + length], begin + length + end.len());
        let named = |tag: &str| entry.split_once(&format!("<{tag}>"))?.1.split_once('<').map(|(name, _)| name);
        out.push_str(&rest[..at]);
        if stays(named("Key").or(named("Prefix")).unwrap_or_default()) {
            out.push_str(&rest[at..after]);
        }
        rest = &rest[after..];
    }
    out.push_str(rest);
    *body = out.into_bytes();
}

#[test]
fn listings_lose_what_they_are_to_lose() {
    let text = "<R><A>1</A><Contents><Key>p/a</Key></Contents><Contents><Key>p/b</Key><Size>3</Size></Contents>\
                <CommonPrefixes><Prefix>p/s/</Prefix></CommonPrefixes></R>";
    let kept = |names: &[&str]| {
        let mut body = text.as_bytes().to_vec();
        keep(&mut body, |name| names.contains(&name));
        String::from_utf8(body).unwrap()
    };
    assert_eq!(kept(&["p/a", "p/b", "p/s/"]), text);
    assert_eq!(kept(&["p/s/"]), "<R><A>1</A><CommonPrefixes><Prefix>p/s/</Prefix></CommonPrefixes></R>");
    assert_eq!(kept(&["p/b"]), "<R><A>1</A><Contents><Key>p/b</Key><Size>3</Size></Contents></R>");
}
