//! What happens exactly at a limit. A limit belongs to what is allowed: neither an hour between two clocks nor a gap as
//! long as the window is reason enough to stop expiring.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use retention::{Clocks, Freeze, History, Plan, Policy, Span, Stamp, plan};

const HOUR: TimeDelta = TimeDelta::hours(1);
const SECOND: TimeDelta = TimeDelta::seconds(1);

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 5, 20, 3, 0, 0).unwrap()
}

/// A snapshot with data of `data`, stored at `stored`, both relative to now.
fn stamp(id: &str, data: TimeDelta, stored: TimeDelta) -> Stamp {
    Stamp { stored: now() + stored, ..Stamp::whole(id.to_owned(), "g".to_owned(), now() + data) }
}

fn planned(stamps: Vec<Stamp>, host: DateTime<Utc>) -> Plan {
    let policy = Policy { within: Span::days(7), weekly: None, monthly: None, yearly: None, min: 1 };
    let history = History { stamps, ..History::default() };
    plan(&policy, &history, Clocks { store: now(), host }, Tz::UTC)
}

#[test]
fn clocks_an_hour_apart_agree_and_a_second_more_freezes() {
    let fresh = || vec![stamp("a", -HOUR, -HOUR)];
    for apart in [HOUR, -HOUR] {
        assert_eq!(planned(fresh(), now() + apart).frozen, None);
        let further = now() + apart + if apart > TimeDelta::zero() { SECOND } else { -SECOND };
        assert_eq!(planned(fresh(), further).frozen, Some(Freeze::Clocks { host: further, store: now() }));
    }
}

#[test]
fn a_snapshot_an_hour_ahead_is_not_from_the_future_and_a_second_more_is() {
    let frozen = |data, stored| planned(vec![stamp("a", data, stored)], now()).frozen;
    let future =
        |data, stored| Some(Freeze::FutureSnapshot { id: "a".to_owned(), data: now() + data, stored: now() + stored });
    // Ahead of the vault's clock.
    assert_eq!(frozen(HOUR, HOUR), None);
    assert_eq!(frozen(HOUR + SECOND, HOUR), future(HOUR + SECOND, HOUR));
    // Ahead of the instant that the vault got it at, wherever the vault's clock is now.
    let long_ago = -HOUR * 5;
    assert_eq!(frozen(long_ago + HOUR, long_ago), None);
    assert_eq!(frozen(long_ago + HOUR + SECOND, long_ago), future(long_ago + HOUR + SECOND, long_ago));
    assert_eq!(frozen(HOUR / 2, -HOUR), future(HOUR / 2, -HOUR));
}

#[test]
fn what_is_an_hour_ahead_is_not_kept_for_that() {
    let reason = |data| planned(vec![stamp("a", data, TimeDelta::zero())], now()).snapshots[0].text();
    assert_eq!(reason(HOUR), "keep: newest; among the newest 1; within 7d");
    assert!(reason(HOUR + SECOND).contains("dated ahead of the vault's clock"));
}

#[test]
fn a_gap_as_long_as_the_window_freezes_nothing_and_a_second_more_does() {
    let week = TimeDelta::days(7);
    let frozen = |gap: TimeDelta| {
        planned(vec![stamp("a", -gap, -gap), stamp("b", TimeDelta::zero(), TimeDelta::zero())], now()).frozen
    };
    assert_eq!(frozen(week), None);
    assert!(matches!(frozen(week + SECOND), Some(Freeze::Gap { after, .. }) if after == "b"));
    // The same for the time since the newest one.
    assert_eq!(planned(vec![stamp("a", -week, -week)], now()).frozen, None);
    let late = planned(vec![stamp("a", -week - SECOND, -week - SECOND)], now()).frozen;
    assert!(matches!(late, Some(Freeze::Stale { newest, .. }) if newest == "a"));
}

#[test]
fn what_a_plan_promises_and_its_vault_lacks_is_what_is_kept_and_not_held() {
    let days = |days| -TimeDelta::days(days);
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
    let plan = planned(
        vec![stamp("old", days(9), days(9)), stamp("mid", days(5), days(5)), stamp("new", days(1), days(1))],
        now(),
    );
    assert_eq!(plan.expired().collect::<Vec<_>>(), ["old"]);
    assert_eq!(plan.kept_but_absent(&ids(&[])), ids(&["mid", "new"]));
    assert_eq!(plan.kept_but_absent(&ids(&["new", "old"])), ids(&["mid"]));
    assert_eq!(plan.kept_but_absent(&ids(&["mid", "new"])), ids(&[]));
}
