//! Exit codes: an interface, listed by `--help`.

use std::cmp::Ordering;
use std::process::ExitCode;

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    Done,
    Failed,
    Usage,
    Partial,
    Damage,
    Breach,
    NoVault,
    Running,
    WrongKey,
    Interrupted,
    Terminated,
}

/// Every way to end: number, word for JSON, meaning.
const ALL: [(Exit, u8, &str, &str); 11] = [
    (Exit::Done, 0, "done", "done"),
    (Exit::Failed, 1, "failed", "failed"),
    (Exit::Usage, 2, "usage", "usage or configuration"),
    (Exit::Partial, 3, "partial", "partial or suspect; what is named"),
    (Exit::Damage, 4, "damage", "damage or a difference"),
    (Exit::Breach, 5, "breach", "an objective or policy is breached"),
    (Exit::NoVault, 10, "no-vault", "no vault"),
    (Exit::Running, 11, "running", "already running"),
    (Exit::WrongKey, 12, "wrong-key", "wrong or missing key"),
    (Exit::Interrupted, 130, "interrupted", "interrupted"),
    (Exit::Terminated, 143, "terminated", "terminated"),
];

impl Exit {
    fn row(self) -> (Self, u8, &'static str, &'static str) {
        ALL.into_iter().find(|(exit, ..)| *exit == self).unwrap_or(ALL[1])
    }

    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        self.row().1
    }

    /// The word for it in JSON.
    pub(crate) fn word(self) -> &'static str {
        self.row().2
    }

    /// Of two ends of parts of one run, the one to report: damage, then failure, then partial, then a breach. A code that
    /// names the cause of a failure stays only where no part failed otherwise.
    pub(crate) fn worse(self, other: Self) -> Self {
        let rank = |exit| match exit {
            Self::Done => 0,
            Self::Breach => 1,
            Self::Partial => 2,
            Self::Failed | Self::Usage | Self::NoVault | Self::Running | Self::WrongKey => 3,
            Self::Damage => 4,
            // No part ends like this, only the process.
            Self::Interrupted | Self::Terminated => 5,
        };
        match rank(other).cmp(&rank(self)) {
            Ordering::Greater => other,
            Ordering::Equal if self != other && rank(self) == rank(Self::Failed) => Self::Failed,
            Ordering::Less | Ordering::Equal => self,
        }
    }

    /// What it means for a run of several sources that one of them ended like this: the codes that name the cause of a
    /// failure are for a run that failed for that cause alone.
    pub(crate) fn of_several(self) -> Self {
        match self {
            Self::Usage | Self::NoVault | Self::Running | Self::WrongKey => Self::Failed,
            other => other,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The list for `--help`.
pub(crate) fn help() -> String {
    let lines: Vec<String> = ALL.iter().map(|(_, code, _, meaning)| format!("  {code:>3}  {meaning}")).collect();
    format!("Exit codes:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_documented_ones() {
        let numbers: Vec<u8> = ALL.iter().map(|(exit, ..)| exit.code()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 10, 11, 12, 130, 143]);
    }

    #[test]
    fn damage_hides_failure_hides_partial_hides_breach() {
        let order = [Exit::Done, Exit::Breach, Exit::Partial, Exit::Failed, Exit::Damage];
        for (at, low) in order.iter().enumerate() {
            for high in &order[at..] {
                assert_eq!(low.worse(*high), *high);
                assert_eq!(high.worse(*low), *high);
            }
        }
    }

    #[test]
    fn a_cause_is_named_only_where_nothing_else_failed() {
        for cause in [Exit::Usage, Exit::NoVault, Exit::Running, Exit::WrongKey] {
            for less in [Exit::Done, Exit::Breach, Exit::Partial, cause] {
                assert_eq!((cause.worse(less), less.worse(cause)), (cause, cause));
            }
            for (other, end) in [(Exit::Damage, Exit::Damage), (Exit::Failed, Exit::Failed)] {
                assert_eq!((cause.worse(other), other.worse(cause)), (end, end));
            }
            assert_eq!(cause.of_several(), Exit::Failed);
        }
        assert_eq!(Exit::NoVault.worse(Exit::WrongKey), Exit::Failed);
        for kept in [Exit::Done, Exit::Failed, Exit::Partial, Exit::Damage] {
            assert_eq!(kept.of_several(), kept);
        }
    }
}
