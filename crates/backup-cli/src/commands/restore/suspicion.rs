//! A snapshot that should be looked at before it is relied on: said in the plan, in a warning and in the proof.

use backup_core::snapshot::OpenSnapshot;
use backup_core::vault::layout::SnapshotId;
use serde_json::{Value, json};

use crate::words;

/// Why a snapshot is suspect.
#[derive(Debug, Clone)]
pub(super) struct Suspicion {
    snapshot: SnapshotId,
    reasons: Vec<String>,
    unsuspected: Option<SnapshotId>,
}

impl Suspicion {
    /// `None`: it is not suspect.
    pub(super) fn of(snapshot: &OpenSnapshot, unsuspected: Option<SnapshotId>) -> Option<Self> {
        let (id, reasons) = (&snapshot.doc().id, &snapshot.manifest().suspect);
        let suspect = id.is_suspect() || !reasons.is_empty();
        suspect.then(|| Self { snapshot: id.clone(), reasons: reasons.clone(), unsuspected })
    }

    /// `suspect for 2 reasons: a; b`.
    pub(super) fn text(&self) -> String {
        format!("suspect for {}: {}", words::count(self.reasons.len(), "reason"), self.reasons.join("; "))
    }

    /// A warning, and what to do.
    pub(super) fn warning(&self) -> (String, String) {
        let hint = match &self.unsuspected {
            Some(id) => format!("the newest that is not suspect: `backup restore {id} --identity FILE`"),
            None => "no snapshot of it is listed that is not suspect; look at what comes back".to_owned(),
        };
        (format!("snapshot `{}` is {}", self.snapshot, self.text()), hint)
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        json!({ "reasons": self.reasons, "newest_unsuspected": self.unsuspected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_reasons_and_the_better_snapshot() {
        let id = |text: &str| text.parse::<SnapshotId>().unwrap();
        let mut suspicion = Suspicion {
            snapshot: id("20261121T020000Z-0r-ccc333-suspect"),
            reasons: vec!["table `t` is empty".into(), "b".into()],
            unsuspected: Some(id("20261120T020000Z-10r-bbb222")),
        };
        let (text, hint) = suspicion.warning();
        assert_eq!(
            text,
            "snapshot `20261121T020000Z-0r-ccc333-suspect` is suspect for 2 reasons: table `t` is empty; b"
        );
        assert!(hint.ends_with("`backup restore 20261120T020000Z-10r-bbb222 --identity FILE`"), "{hint}");
        suspicion.unsuspected = None;
        assert!(suspicion.warning().1.starts_with("no snapshot of it"), "{suspicion:?}");
        let value = json!({ "reasons": ["table `t` is empty", "b"], "newest_unsuspected": null });
        assert_eq!(suspicion.to_json(), value);
    }
}
