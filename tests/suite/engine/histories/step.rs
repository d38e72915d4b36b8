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
    /// The next run dies when its objects are there and its barrier has not begun, and the vault's machine loses its power
    /// with everything that no barrier made durable: the host remembers objects that are gone.
    CrashUnsynced,
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

/// A history of about `length` steps, and then, from whatever these left, what chance brings together too seldom.
pub(super) fn generate(seed: u64, length: usize, attacked: bool) -> Vec<Step> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut steps = Vec::new();
    while steps.len() < length {
        let kinds = if attacked { 80 } else { 50 };
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
                let crash = Step::Crash { call: dice.below(1000), after: dice.below(2) == 0, cut };
                let died = match dice.below(3) {
                    0 => Step::Run { host: 0, odd: false },
                    1 => Step::Replicate,
                    _ => Step::Prune { vault: pick(&mut dice, 2) },
                };
                // And once more, as whoever sees it fail does.
                steps.extend([crash, died.clone(), died]);
            }
            39 => steps.push(Step::LoseState { host: pick(&mut dice, 2) }),
            40 => steps.push(Step::Away { vault: pick(&mut dice, 2) }),
            41 => steps.push(Step::Lapsed),
            42..=43 => steps.push(Step::Back),
            44..=45 => steps.extend(unsynced()),
            46..=47 => steps.extend(jump(&mut dice)),
            48 => weeks_away(&mut dice, &mut steps),
            49 => {
                // Credentials have lapsed, and nobody sees to it for days.
                steps.push(Step::Lapsed);
                for _ in 0..2 + dice.below(5) {
                    steps.extend([Step::Pass { hours: 24 }, Step::Run { host: 0, odd: false }]);
                    steps.extend([Step::Prune { vault: 0 }, Step::Prune { vault: 1 }]);
                }
                steps.extend([Step::Back, Step::Run { host: 0, odd: false }]);
            }
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
    tail(&mut dice, &mut steps);
    steps
}

/// What is promised for ever is tried while everything else goes: pins over so many quiet days that what they keep has
/// expired in both vaults, then clocks that jump when something is about to be deleted, and a run whose objects are lost.
fn tail(dice: &mut Dice, steps: &mut Vec<Step>) {
    steps.extend([Step::Back, Step::SetRight, Step::AcceptAll]);
    steps.extend([Step::Pin { nth: 0 }, Step::Pin { nth: dice.below(1000) }, Step::Check { vault: 1, nth: 0 }]);
    for day in 0..7 {
        steps.extend(quiet_day());
        steps.extend((day == 3).then(|| Step::Undo { vault: pick(dice, 2) }));
    }
    steps.push(Step::Unpin { nth: dice.below(1000) });
    for _ in 0..2 {
        steps.extend(quiet_day());
        steps.extend(jump(dice));
    }
    steps.extend(unsynced());
}

fn quiet_day() -> [Step; 6] {
    let (run, prune) = (Step::Run { host: 0, odd: false }, |vault| Step::Prune { vault });
    [Step::Pass { hours: 24 }, run, Step::Replicate, Step::AcceptAll, prune(0), prune(1)]
}

/// A clock jumps when a day is over, just before the prunes; and then it is set right.
fn jump(dice: &mut Dice) -> [Step; 7] {
    let far = [(Whose::Host, 365), (Whose::Host, -30), (Whose::Store(0), 365), (Whose::Store(1), 2), (Whose::All, 365)];
    let (whose, days) = far[pick(dice, 5)];
    let (run, prune) = (Step::Run { host: 0, odd: false }, |vault| Step::Prune { vault });
    let jump = |days| Step::Jump { whose, days };
    [Step::Pass { hours: 24 }, run, Step::Replicate, jump(days), prune(0), prune(1), jump(-days)]
}

/// A first run of a generation that loses its objects, and the next one of the same data.
fn unsynced() -> [Step; 4] {
    let run = Step::Run { host: 0, odd: false };
    [Step::Pass { hours: 48 }, Step::CrashUnsynced, run.clone(), run]
}

/// A vault does not answer for longer than any window, while the other one goes on; then it is filled again.
fn weeks_away(dice: &mut Dice, steps: &mut Vec<Step>) {
    let vault = pick(dice, 2);
    steps.push(Step::Away { vault });
    for _ in 0..8 + dice.below(7) {
        steps.extend([Step::Pass { hours: 24 }, Step::Run { host: 0, odd: false }, Step::Prune { vault: 1 - vault }]);
    }
    steps.extend([Step::Back, Step::Replicate, Step::Prune { vault: 0 }, Step::Prune { vault: 1 }]);
}

fn pick(dice: &mut Dice, of: u64) -> usize {
    usize::try_from(dice.below(of)).unwrap()
}
