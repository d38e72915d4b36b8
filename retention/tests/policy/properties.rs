//! What must hold for every history, however odd.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;
use retention::{Clocks, Freeze, Generation, History, Plan, Policy, Span, Stamp, plan};

const DAY: TimeDelta = TimeDelta::days(1);

fn policies() -> impl Strategy<Value = Policy> {
    let tier = || proptest::option::of(0..6_u32);
    (1..60_u64, tier(), tier(), tier(), 0..6_u32).prop_map(|(days, weekly, monthly, yearly, min)| Policy {
        within: Span::days(days),
        weekly,
        monthly,
        yearly,
        min,
    })
}

fn zones() -> impl Strategy<Value = Tz> {
    proptest::sample::select(vec![
        Tz::UTC,
        Tz::America__Bogota,
        Tz::America__New_York,
        Tz::Europe__Berlin,
        Tz::Pacific__Apia,
        Tz::America__St_Johns,
    ])
}

/// Backups every `step` hours up to `newest`, weekly generations, all in order: no rule but age and calendar.
fn regular(newest: DateTime<Utc>, count: u32, step_hours: i64) -> History {
    let week = Span::days(7);
    let mut history = History::default();
    for index in 0..count {
        let data = newest - TimeDelta::hours(step_hours) * i32::try_from(index).unwrap();
        let week_number = data.timestamp().div_euclid(7 * 86_400);
        let generation = format!("g{week_number}");
        match history.generations.iter_mut().find(|known| known.id == generation) {
            Some(known) => known.listed += 1,
            None => history.generations.push(Generation {
                id: generation.clone(),
                start: Utc.timestamp_opt(week_number * 7 * 86_400, 0).unwrap(),
                period: week,
                listed: 1,
            }),
        }
        history.stamps.push(Stamp {
            id: format!("s{index:04}"),
            generation,
            data,
            stored: data + TimeDelta::minutes(10),
            pinned: false,
            suspect: false,
            accepted: false,
            checked: false,
            restored: false,
            complete: true,
            imported: false,
        });
    }
    history
}

/// Newest instants near changes of clocks, leap days and ends of years, and in between.
fn newest() -> impl Strategy<Value = DateTime<Utc>> {
    let days = vec![
        (2026, 3, 29),
        (2026, 10, 25),
        (2026, 3, 8),
        (2026, 11, 1),
        (2028, 2, 29),
        (2027, 1, 1),
        (2032, 12, 31),
        (2026, 7, 15),
    ];
    (proptest::sample::select(days), -3 * 86_400..3 * 86_400_i64).prop_map(|((year, month, day), seconds)| {
        Utc.with_ymd_and_hms(year, month, day, 0, 0, 0).unwrap() + TimeDelta::seconds(seconds)
    })
}

fn regulars() -> impl Strategy<Value = History> {
    (newest(), 1..120_u32, 1..24_i64).prop_map(|(newest, count, step)| regular(newest, count, step))
}

/// Regular histories with things that people and accidents do to them.
fn histories() -> impl Strategy<Value = History> {
    let marks = proptest::collection::vec((any::<prop::sample::Index>(), 0..10_u8), 0..8);
    (regulars(), marks).prop_map(|(mut history, marks)| {
        for (index, mark) in marks {
            let index = index.index(history.stamps.len());
            let stamp = &mut history.stamps[index];
            match mark {
                0 => stamp.pinned = true,
                1 => stamp.suspect = true,
                2 => (stamp.suspect, stamp.accepted) = (true, true),
                3 => stamp.checked = true,
                4 => stamp.restored = true,
                5 => stamp.complete = false,
                6 => stamp.stored += DAY * 3,
                7 => stamp.data -= DAY * 3,
                8 => history.generations[0].listed += 1,
                _ => {
                    history.promised_elsewhere.insert(stamp.id.clone());
                }
            }
        }
        history
    })
}

fn agreeing(now: DateTime<Utc>) -> Clocks {
    Clocks { store: now, host: now }
}

/// A little after the last thing that happened.
fn after(history: &History) -> DateTime<Utc> {
    history.stamps.iter().map(|stamp| stamp.stored.max(stamp.data)).max().unwrap() + TimeDelta::minutes(30)
}

fn expired(plan: &Plan) -> BTreeSet<&str> {
    plan.expired().collect()
}

fn deletable(plan: &Plan) -> BTreeSet<&str> {
    plan.deletable().collect()
}

#[test]
fn a_regular_history_does_expire() {
    // The properties below say what is not deleted: they would hold for a plan that never deletes anything.
    let newest = Utc.with_ymd_and_hms(2026, 7, 15, 2, 0, 0).unwrap();
    let history = regular(newest, 60, 24);
    let policy = Policy { within: Span::days(7), weekly: None, monthly: None, yearly: None, min: 3 };
    let plan = plan(&policy, &history, agreeing(newest + TimeDelta::hours(1)), Tz::UTC);
    assert_eq!(plan.frozen, None);
    assert_eq!(plan.expired().count(), 52);
    assert!(plan.deletable().count() >= 5);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_newest_always_stays(policy in policies(), history in histories(), tz in zones(), ahead in 0..1000_i64) {
        let now = after(&history) + DAY * i32::try_from(ahead).unwrap();
        for clocks in [agreeing(now), agreeing(after(&history)), Clocks { store: after(&history), host: now }] {
            let plan = plan(&policy, &history, clocks, tz);
            let whole = || history.stamps.iter().filter(|stamp| stamp.complete);
            for newest in [
                history.stamps.iter().max_by_key(|stamp| stamp.data.min(stamp.stored)),
                whole().max_by_key(|stamp| stamp.data.min(stamp.stored)),
                whole().filter(|stamp| stamp.restored).max_by_key(|stamp| stamp.data.min(stamp.stored)),
                whole().filter(|stamp| stamp.restored || stamp.checked).max_by_key(|stamp| stamp.data.min(stamp.stored)),
            ].into_iter().flatten() {
                prop_assert!(!expired(&plan).contains(newest.id.as_str()));
                prop_assert!(!deletable(&plan).contains(newest.generation.as_str()));
            }
            let kept_whole = whole().filter(|stamp| !expired(&plan).contains(stamp.id.as_str())).count();
            prop_assert!(kept_whole >= whole().count().min(policy.min as usize));
        }
    }

    #[test]
    fn what_someone_asked_for_stays(policy in policies(), history in histories(), tz in zones()) {
        let plan = plan(&policy, &history, agreeing(after(&history)), tz);
        let gone = expired(&plan);
        let anomaly = history.stamps.iter().filter(|stamp| stamp.suspect && !stamp.accepted).map(|stamp| stamp.data).max();
        for stamp in &history.stamps {
            let wanted = stamp.pinned || history.promised_elsewhere.contains(&stamp.id)
                || anomaly.is_some_and(|anomaly| stamp.data <= anomaly);
            prop_assert!(!(wanted && gone.contains(stamp.id.as_str())), "{} is expired", stamp.id);
        }
    }

    #[test]
    fn more_rules_never_delete_more(
        policy in policies(), history in histories(), tz in zones(), which in 0..4_u8, more in 1..5_u32,
    ) {
        let mut richer = policy;
        let tier = match which {
            0 => None,
            1 => Some(&mut richer.weekly),
            2 => Some(&mut richer.monthly),
            _ => Some(&mut richer.yearly),
        };
        match tier {
            Some(tier) => *tier = Some(tier.unwrap_or(0) + more),
            None => richer.min += more,
        }
        let clocks = agreeing(after(&history));
        let (poor, rich) = (plan(&policy, &history, clocks, tz), plan(&richer, &history, clocks, tz));
        prop_assert!(expired(&rich).is_subset(&expired(&poor)));
        prop_assert!(deletable(&rich).is_subset(&deletable(&poor)));
    }

    #[test]
    fn a_longer_window_never_deletes_more(policy in policies(), history in histories(), tz in zones(), more in 1..40_u64) {
        let wider = Policy { within: policy.within.plus(Span::days(more)), ..policy };
        let clocks = agreeing(after(&history));
        let (narrow, wide) = (plan(&policy, &history, clocks, tz), plan(&wider, &history, clocks, tz));
        // A gap can be longer than the narrow window only: then the narrow one freezes, and that is not its merit.
        prop_assume!(narrow.frozen.is_none());
        prop_assert!(wide.frozen.is_none());
        prop_assert!(expired(&wide).is_subset(&expired(&narrow)));
        prop_assert!(deletable(&wide).is_subset(&deletable(&narrow)));
    }

    #[test]
    fn the_order_of_the_input_is_irrelevant(
        policy in policies(),
        (history, shuffled) in histories().prop_flat_map(|history| {
            let stamps = Just(history.stamps.clone()).prop_shuffle();
            let generations = Just(history.generations.clone()).prop_shuffle();
            (Just(history), stamps, generations).prop_map(|(history, stamps, generations)| {
                let shuffled = History { stamps, generations, ..history.clone() };
                (history, shuffled)
            })
        }),
        tz in zones(),
    ) {
        let clocks = agreeing(after(&history));
        prop_assert_eq!(plan(&policy, &history, clocks, tz), plan(&policy, &shuffled, clocks, tz));
    }

    #[test]
    fn an_outage_longer_than_the_window_deletes_nothing(
        policy in policies(), history in histories(), tz in zones(), longer in 1..400_u64, since in 0..20_u32,
    ) {
        // Some backups after the outage, or none yet.
        let outage = policy.within.plus(Span::hours(longer)).as_delta();
        let before = after(&history);
        let back = before + outage + TimeDelta::days(since.into());
        let mut history = history;
        let resumed = regular(back, since, 24);
        let renamed = |id: &str| format!("new-{id}");
        history.stamps.extend(resumed.stamps.into_iter().map(|stamp| Stamp {
            id: renamed(&stamp.id), generation: renamed(&stamp.generation), ..stamp
        }));
        history.generations.extend(resumed.generations.into_iter().map(|generation| Generation {
            id: renamed(&generation.id), ..generation
        }));
        let plan = plan(&policy, &history, agreeing(back + TimeDelta::hours(1)), tz);
        prop_assert!(plan.frozen.is_some());
        prop_assert_eq!(plan.expired().count() + plan.deletable().count(), 0);
    }

    #[test]
    fn a_clock_a_year_ahead_deletes_nothing(
        within_days in 1..2000_u64, policy in policies(), history in regulars(), tz in zones(), new in 0..3_u32,
    ) {
        let policy = Policy { within: Span::days(within_days), ..policy };
        let right = after(&history);
        let wrong = right + TimeDelta::days(365);
        // Backups go on under the wrong clock; with the vault's own, or with the same one in a directory.
        let mut follows = history.clone();
        let mut host_only = history.clone();
        for stamp in regular(wrong, new, 1).stamps {
            let stamp = Stamp { id: format!("new-{}", stamp.id), generation: history.generations[0].id.clone(), ..stamp };
            host_only.stamps.push(Stamp { stored: right, ..stamp.clone() });
            follows.stamps.push(stamp);
        }
        let ahead = wrong + TimeDelta::minutes(20);
        let cases = [
            ("both clocks ahead", &follows, agreeing(ahead)),
            ("the vault's clock ahead", &history, Clocks { store: ahead, host: right }),
            ("the machine's clock ahead", &host_only, Clocks { store: right, host: ahead }),
        ];
        for (name, history, clocks) in cases {
            let plan = plan(&policy, history, clocks, tz);
            prop_assert!(plan.frozen.is_some(), "{}", name);
            prop_assert_eq!(plan.expired().count() + plan.deletable().count(), 0, "{}", name);
        }
        // The clock is right again, and what was stored meanwhile is from the future.
        for history in [&follows, &host_only].into_iter().filter(|_| new > 0) {
            let plan = plan(&policy, history, agreeing(right + TimeDelta::minutes(40)), tz);
            let from_the_future = matches!(plan.frozen, Some(Freeze::FutureSnapshot { .. }));
            prop_assert!(from_the_future);
            prop_assert_eq!(plan.expired().count() + plan.deletable().count(), 0);
        }
        // An operator who accepts these does not make the others old by it: they stay and count for nothing.
        let mut accepted = follows.clone();
        accepted.stamps.iter_mut().filter(|stamp| stamp.stored > ahead - DAY).for_each(|stamp| stamp.accepted = true);
        let clocks = agreeing(right + TimeDelta::minutes(40));
        let (with, without) = (plan(&policy, &accepted, clocks, tz), plan(&policy, &history, clocks, tz));
        prop_assert_eq!(&with.frozen, &None);
        prop_assert_eq!(expired(&with), expired(&without));
    }

    #[test]
    fn a_generation_goes_whole_or_not_at_all(
        policy in policies(), history in histories(), tz in zones(), later in 0..200_i64, host_off in -90..90_i64,
    ) {
        let now = after(&history) + TimeDelta::hours(later);
        let plan = plan(&policy, &history, Clocks { store: now, host: now + TimeDelta::minutes(host_off) }, tz);
        for id in plan.deletable() {
            let generation = history.generations.iter().find(|generation| generation.id == id).unwrap();
            prop_assert!(plan.frozen.is_none());
            prop_assert!(generation.start + TimeDelta::days(7 + 7 + 1) <= now, "{} is open", id);
            let inside: Vec<_> = plan.snapshots.iter().filter(|snapshot| snapshot.generation == id).collect();
            prop_assert!(inside.iter().all(|snapshot| !snapshot.keep), "{} holds kept ones", id);
            prop_assert_eq!(inside.len(), generation.listed);
        }
        prop_assert_eq!(plan.snapshots.len(), history.stamps.len());
        prop_assert!(plan.snapshots.iter().all(|snapshot| !snapshot.reasons.is_empty()));
        if host_off.abs() > 60 {
            prop_assert!(plan.frozen.is_some());
        }
    }

    /// Weeks, months and years with clock changes and leap days in them: each of the last periods keeps its newest,
    /// found here by going through all local dates, and nothing lives longer than the maximum says.
    #[test]
    fn calendar_tiers_keep_the_newest_of_each_period(
        newest in newest(), tz in zones(), weekly in 0..8_u32, monthly in 0..6_u32, yearly in 0..3_u32,
    ) {
        let history = regular(newest, 400, 24);
        let policy = Policy {
            within: Span::days(2), weekly: Some(weekly), monthly: Some(monthly), yearly: Some(yearly), min: 1,
        };
        let plan = plan(&policy, &history, agreeing(after(&history)), tz);
        prop_assert_eq!(&plan.frozen, &None);
        let mut wanted = BTreeSet::new();
        for (format, periods) in [("%G-%V", weekly), ("%Y-%m", monthly), ("%Y", yearly)] {
            let mut seen = Vec::new();
            // Newest first: the first of a period is its newest.
            for stamp in &history.stamps {
                let period = stamp.data.with_timezone(&tz).format(format).to_string();
                if !seen.contains(&period) && seen.len() < periods as usize {
                    seen.push(period);
                    wanted.insert(stamp.id.as_str());
                }
            }
        }
        wanted.extend(history.stamps.iter().filter(|stamp| newest - stamp.stored <= DAY * 2).map(|stamp| stamp.id.as_str()));
        let kept: BTreeSet<_> = plan.snapshots.iter().filter(|snapshot| snapshot.keep).map(|snapshot| snapshot.id.as_str()).collect();
        prop_assert_eq!(&kept, &wanted);
        let longest = policy.longest_needed().as_delta() + TimeDelta::hours(1);
        let oldest = history.stamps.iter().filter(|stamp| kept.contains(stamp.id.as_str())).map(|stamp| stamp.data).min();
        prop_assert!(newest - oldest.unwrap() <= longest);
    }
}
