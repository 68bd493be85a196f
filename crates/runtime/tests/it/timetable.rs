//! When schedules tick, at the edges of daylight saving time above all.

use crosspoint_core::{Code, ScheduleSpec, Timestamp, Timetable};
use crosspoint_runtime::CronTimetable;

fn ticks(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let spec = ScheduleSpec::cron(cron).timezone(zone);
    let mut at: Timestamp = after.parse().unwrap();
    let mut ticks = Vec::new();
    while ticks.len() < count {
        at = CronTimetable::new().next(&spec, at).unwrap().unwrap();
        ticks.push(at.to_string().replace(".000Z", "Z"));
    }
    ticks
}

#[test]
fn daylight_saving_time_loses_and_doubles_nothing() {
    let cases: [(&str, &str, &str, &[&str]); 9] = [
        // Berlin: 02:00 to 03:00 does not exist on 29 March 2026. A fixed time runs right after the gap.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T00:00:00Z",
            &["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        ),
        // Berlin: 02:00 to 03:00 comes twice on 25 October 2026. A fixed time runs once.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        ),
        // An interval runs through both hours.
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2026-10-24T23:45:00Z",
            &[
                "2026-10-25T00:00:00Z",
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:00:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-25T02:00:00Z",
            ],
        ),
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2026-03-29T00:15:00Z",
            &["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"],
        ),
        // New York: 8 March and 1 November 2026.
        (
            "30 2 * * *",
            "America/New_York",
            "2026-03-07T12:00:00Z",
            &["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"],
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2026-10-31T12:00:00Z",
            &["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"],
        ),
        // Sao Paulo: midnight did not exist on 4 November 2018.
        (
            "0 0 * * *",
            "America/Sao_Paulo",
            "2018-11-03T12:00:00Z",
            &["2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"],
        ),
        // Lord Howe goes back by half an hour: 01:30 to 02:00 comes twice on 5 April 2026.
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-03T20:00:00Z",
            &["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"],
        ),
        // Seconds come first.
        (
            "15 0 12 * * *",
            "UTC",
            "2026-01-01T12:00:15Z",
            &["2026-01-02T12:00:15Z"],
        ),
    ];
    for (cron, zone, after, expected) in cases {
        assert_eq!(ticks(cron, zone, after, expected.len()), expected, "{cron} in {zone}");
    }
}

#[test]
fn a_tick_is_strictly_later() {
    assert_eq!(
        ticks("0 * * * *", "UTC", "2026-01-01T12:00:00Z", 1),
        ["2026-01-01T13:00:00Z"]
    );
    assert_eq!(
        ticks("0 * * * *", "UTC", "2026-01-01T11:59:59.999Z", 1),
        ["2026-01-01T12:00:00Z"]
    );
    assert_eq!(
        ticks("* * * * * *", "UTC", "2026-01-01T12:00:00.001Z", 1),
        ["2026-01-01T12:00:01Z"]
    );
}

#[test]
fn the_last_tick_is_the_present_one_or_before() {
    let hourly = ScheduleSpec::cron("0 * * * *");
    for (until, expected) in [
        ("2026-01-01T12:00:00Z", "2026-01-01T12:00:00Z"),
        ("2026-01-01T12:59:59.999Z", "2026-01-01T12:00:00Z"),
        ("2026-01-01T12:00:00.001Z", "2026-01-01T12:00:00Z"),
    ] {
        let last = CronTimetable::new().last(&hourly, until.parse().unwrap()).unwrap();
        assert_eq!(last, Some(expected.parse().unwrap()), "{until}");
    }
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    for (cron, zone) in [
        ("", "UTC"),
        ("* * * *", "UTC"),
        ("60 * * * *", "UTC"),
        ("* * * * * * *", "UTC"),
        ("every day", "UTC"),
        ("0 3 * * *", "Europe/Atlantis"),
        ("0 3 * * *", ""),
    ] {
        let spec = ScheduleSpec::cron(cron).timezone(zone);
        let error = CronTimetable::new().next(&spec, now).unwrap_err();
        assert_eq!(error.code(), Code::ScheduleInvalid, "{cron:?} in {zone:?}");
    }
}

#[test]
fn a_date_that_never_comes_has_no_ticks() {
    let spec = ScheduleSpec::cron("0 0 30 2 *");
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(CronTimetable::new().next(&spec, now).unwrap(), None);
}

#[test]
fn intervals_are_counted_from_the_epoch() {
    let spec = ScheduleSpec::every(std::time::Duration::from_secs(300));
    let table = CronTimetable::new();
    let now = "2026-03-29T00:58:59.999Z".parse().unwrap();
    let next: Vec<String> = table
        .upcoming(&spec, now, 3)
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        next,
        [
            "2026-03-29T01:00:00.000Z",
            "2026-03-29T01:05:00.000Z",
            "2026-03-29T01:10:00.000Z"
        ]
    );
    let on_time: Timestamp = "2026-03-29T01:05:00Z".parse().unwrap();
    assert_eq!(table.last(&spec, on_time).unwrap(), Some(on_time));
    assert_eq!(
        table.next(&spec, on_time).unwrap(),
        Some("2026-03-29T01:10:00Z".parse().unwrap())
    );
    let short = ScheduleSpec::every(std::time::Duration::from_millis(999));
    assert_eq!(table.next(&short, now).unwrap_err().code(), Code::ScheduleInvalid);
}

#[test]
fn people_see_the_next_ten_ticks_and_fewer_where_there_are_fewer() {
    let table = CronTimetable::new();
    let now = "2026-03-28T00:00:00Z".parse().unwrap();
    let nightly = ScheduleSpec::cron("30 2 * * *").timezone("Europe/Berlin");
    assert_eq!(table.upcoming(&nightly, now, 10).unwrap().len(), 10);
    let never = ScheduleSpec::cron("0 0 30 2 *");
    assert!(table.upcoming(&never, now, 10).unwrap().is_empty());
}
