//! What can happen, and how a seed becomes a history.

use chrono::TimeDelta;

use super::super::crash_points::Dice;
use super::attack::Attack;

/// Which clock is meant: the hosts', or that of one vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Host,
    Store(usize),
    All,
}

/// One thing that happens. Numbers that name a snapshot or a call are taken modulo how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A host captures into the first vault that answers.
    Run {
        host: usize,
        odd: bool,
    },
    /// The same, and the upload lasts so many days.
    LongRun {
        host: usize,
        days: i64,
    },
    /// Both ways.
    Replicate,
    Prune {
        vault: usize,
    },
    Undo {
        vault: usize,
    },
    Pin {
        nth: u64,
    },
    Unpin {
        nth: u64,
    },
    Accept {
        nth: u64,
    },
    /// An operator looks at everything and accepts it.
    AcceptAll,
    /// A snapshot of a vault is checked, and marked so.
    Check {
        vault: usize,
        nth: u64,
    },
    Pass {
        hours: i64,
    },
    /// A clock jumps; the true time does not.
    Jump {
        whose: Whose,
        days: i64,
    },
    /// All clocks are set right.
    SetRight,
    /// The next operation dies at some call, before or after it; with a seed the vault's machine loses its power too.
    Crash {
        call: u64,
        after: bool,
        cut: Option<u64>,
    },
    LoseState {
        host: usize,
    },
    /// A vault does not answer, or refuses everybody.
    Away {
        vault: usize,
    },
    Lapsed,
    /// Everything answers again.
    Back,
    Attack(Attack),
    /// Fails: to try what becomes of a history that does.
    Fails,
}

/// A history of about `length` steps.
pub(super) fn generate(seed: u64, length: usize, attacked: bool) -> Vec<Step> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut steps = Vec::new();
    while steps.len() < length {
        let kinds = if attacked { 60 } else { 44 };
        match dice.below(kinds) {
            0..=17 => {
                // A day as it should be.
                steps.push(Step::Pass { hours: 23 });
                steps.push(Step::Run { host: usize::from(dice.below(8) == 0), odd: dice.below(25) == 0 });
                steps.push(Step::Replicate);
                steps.extend([Step::Prune { vault: 0 }, Step::Prune { vault: 1 }]);
            }
            18..=19 => steps.push(Step::Run { host: pick(&mut dice, 2), odd: false }),
            20 => steps.push(Step::LongRun { host: 0, days: [1, 2, 3, 9][pick(&mut dice, 4)] }),

            22 => steps.push(Step::Prune { vault: pick(&mut dice, 2) }),
            23 => steps.push(Step::Undo { vault: pick(&mut dice, 2) }),
            21 | 24 => steps.push(Step::Pin { nth: dice.below(1000) }),
            25 => steps.push(Step::Unpin { nth: dice.below(1000) }),
            26 => steps.push(Step::Accept { nth: dice.below(1000) }),
            27..=29 => steps.push(Step::AcceptAll),
            30 => steps.push(Step::Check { vault: pick(&mut dice, 2), nth: dice.below(1000) }),
            31 => {
                let hours = TimeDelta::days([0, 1, 2, 20][pick(&mut dice, 4)]).num_hours() + 5;
                steps.push(Step::Pass { hours });
            }
            32 => {
                let whose = [Whose::Host, Whose::Store(0), Whose::Store(1), Whose::All][pick(&mut dice, 4)];
                steps.push(Step::Jump { whose, days: [1, 365, -30][pick(&mut dice, 3)] });
                steps.extend([Step::Prune { vault: 0 }, Step::Prune { vault: 1 }]);
            }
            33..=34 => steps.push(Step::SetRight),
            35..=38 => {
                let cut = (dice.below(2) == 0).then(|| dice.below(1000));
                steps.push(Step::Crash { call: dice.below(1000), after: dice.below(2) == 0, cut });
                steps.push(match dice.below(3) {
                    0 => Step::Run { host: 0, odd: false },
                    1 => Step::Replicate,
                    _ => Step::Prune { vault: pick(&mut dice, 2) },
                });
            }
            39 => steps.push(Step::LoseState { host: pick(&mut dice, 2) }),
            40 => steps.push(Step::Away { vault: pick(&mut dice, 2) }),
            41 => steps.push(Step::Lapsed),
            42..=43 => steps.push(Step::Back),
            _ => steps.push(Step::Attack(Attack::random(&mut dice))),
        }
        // What stops everything ends soon, or nothing would happen after the first tenth of a history.
        let stopped = |step: &Step| matches!(step, Step::Jump { .. } | Step::Away { .. } | Step::Lapsed);
        let since = steps.iter().rev().position(stopped);
        let ended = steps.iter().rev().take(since.unwrap_or(0)).any(|step| matches!(step, Step::SetRight | Step::Back));
        if since.is_some_and(|since| since > 14) && !ended {
            steps.extend([Step::SetRight, Step::Back]);
        }
    }
    steps
}

fn pick(dice: &mut Dice, of: u64) -> usize {
    usize::try_from(dice.below(of)).unwrap()
}
