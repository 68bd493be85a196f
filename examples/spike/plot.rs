//! The plot: for each policy what came, what was answered and how long it took, over time. Small panels side by side
//! with the same axes instead of twelve lines in one, so that it can be read in black and white. Written by hand, so that
//! it needs no drawing crate.

use crate::{Options, Results, output};
use crosspoint_simulator::{End, Report, case::Case};
use std::fmt::Write as _;

/// A panel with its margins.
const COLUMN: f64 = 350.0;
const ROW: f64 = 252.0;
const LEFT: f64 = 58.0;
const WIDTH: f64 = 276.0;
/// Above the first row.
const HEAD: f64 = 112.0;
/// Where the two parts of a panel are, from its top.
const CALLS: (f64, f64) = (22.0, 110.0);
const TIMES: (f64, f64) = (148.0, 68.0);

const DARK: &str = "#1f3b57";
const LIGHT: &str = "#b9c6d3";
const GREY: &str = "#666";

/// Seconds at the bottom and the top of the latency part.
const FASTEST: f64 = 0.01;
const SLOWEST: f64 = 100.0;

/// One second of a run, by when calls should have been sent.
#[derive(Default, Clone)]
struct Second {
    sent: usize,
    later: usize,
    /// How long the calls took that were answered on the connection.
    took: Vec<f64>,
}

/// An SVG document.
pub fn draw(case: &Case, results: &Results, options: &Options) -> String {
    let columns = results.len().clamp(2, 3);
    let rows = results.len().div_ceil(columns);
    let (width, height) = (COLUMN * columns as f64 + 20.0, HEAD + ROW * rows as f64 + 16.0);
    let runs: Vec<Vec<Second>> = results.iter().map(|(_, report)| seconds(case, report)).collect();
    let most = runs.iter().flatten().map(|second| second.sent).max().unwrap_or(1);
    let step = nice(most as f64 / 4.0);
    let top = step * (most as f64 / step).ceil();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    head(&mut svg, case, options);
    for (index, ((peer, report), run)) in results.iter().zip(&runs).enumerate() {
        let (x, y) = (COLUMN * (index % columns) as f64, HEAD + ROW * (index / columns) as f64);
        let title = format!(
            "{}: {:.1} % on the connection",
            peer.name(),
            report.figure("on_connection")
        );
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
        text(
            &mut svg,
            (LEFT, 14.0),
            "start",
            "font-weight=\"bold\" font-size=\"12\"",
            &title,
        );
        calls(&mut svg, case, run, step, top);
        times(&mut svg, case, run);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn seconds(case: &Case, report: &Report) -> Vec<Second> {
    let mut all = vec![Second::default(); case.duration.ceil() as usize];
    for point in &report.timeline {
        let Some(second) = all.get_mut(point.at as usize) else {
            continue;
        };
        second.sent += 1;
        match point.end {
            Some(End::Direct | End::Queued) => second.took.push(point.after),
            Some(End::Polled) => second.later += 1,
            _ => {}
        }
    }
    for second in &mut all {
        second.took.sort_by(f64::total_cmp);
    }
    all
}

/// 1, 2 or 5 times a power of ten, at least `of`.
fn nice(of: f64) -> f64 {
    let power = 10f64.powf(of.max(1.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    power * steps.into_iter().find(|step| step * power >= of).unwrap_or(10.0)
}

/// Title and legend.
fn head(svg: &mut String, case: &Case, options: &Options) {
    text(
        svg,
        (LEFT, 26.0),
        "start",
        "font-size=\"16\" font-weight=\"bold\"",
        &case.title,
    );
    text(svg, (LEFT, 44.0), "start", "", &output::setting(case));
    text(svg, (LEFT, 60.0), "start", "", output::manner(options));
    let y = 74.0;
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{y}\" width=\"22\" height=\"11\" fill=\"{DARK}\"/>\
         <rect x=\"250\" y=\"{y}\" width=\"22\" height=\"11\" fill=\"{LIGHT}\"/>\
         <path d=\"M490 {mid}h22\" stroke=\"black\" fill=\"none\"/>\
         <path d=\"M560 {mid}h22\" stroke=\"black\" stroke-width=\"1.8\"/>\
         <path d=\"M630 {mid}h22\" stroke=\"black\" stroke-dasharray=\"2 2\"/>",
        mid = y + 6.0
    );
    let labels = [
        (LEFT, "answered on the connection"),
        (250.0, "answered when the client asked later"),
        (490.0, "sent"),
        (560.0, "p99"),
        (630.0, "median"),
    ];
    for (x, label) in labels {
        text(svg, (x + 28.0, y + 10.0), "start", "", label);
    }
    let note =
        "Shaded: the spike. Calls stand at the second in which they were sent; white under the line was not answered.";
    text(svg, (LEFT, 101.0), "start", &format!("fill=\"{GREY}\""), note);
}

/// The upper part of a panel.
fn calls(svg: &mut String, case: &Case, run: &[Second], step: f64, top: f64) {
    let (y, height) = CALLS;
    let count = (top / step).round() as usize;
    let ticks: Vec<(f64, String)> = (0..=count)
        .map(|tick| (tick as f64 / count as f64, format!("{:.0}", step * tick as f64)))
        .collect();
    frame(svg, case, CALLS, &ticks, "calls a second");
    let at = |value: usize| y + height * (1.0 - value as f64 / top);
    let answered = steps(case, run, |second| at(second.took.len() + second.later));
    let on_connection = steps(case, run, |second| at(second.took.len()));
    let sent = steps(case, run, |second| at(second.sent));
    let (floor, right) = (y + height, LEFT + WIDTH);
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {floor}L{answered}L{right} {floor}Z\" fill=\"{LIGHT}\"/>\
         <path d=\"M{LEFT} {floor}L{on_connection}L{right} {floor}Z\" fill=\"{DARK}\"/>\
         <path d=\"M{sent}\" fill=\"none\" stroke=\"black\" stroke-width=\"0.9\"/>"
    );
}

/// The lower part of a panel.
fn times(svg: &mut String, case: &Case, run: &[Second]) {
    let (y, height) = TIMES;
    let decades = (SLOWEST / FASTEST).log10();
    let part = |value: f64| ((value / FASTEST).log10() / decades).clamp(0.0, 1.0);
    let ticks = [0.01, 0.1, 1.0, 10.0, 100.0].map(|value| (part(value), format!("{value}")));
    frame(svg, case, TIMES, &ticks, "seconds");
    for (share, style) in [(0.99, "stroke-width=\"1.8\""), (0.5, "stroke-dasharray=\"2 2\"")] {
        let mut path = String::new();
        let mut command = 'M';
        for (index, second) in run.iter().enumerate() {
            let last = second.took.len().saturating_sub(1);
            let rank = ((second.took.len() as f64 * share) as usize).min(last);
            let Some(value) = second.took.get(rank) else {
                command = 'M';
                continue;
            };
            let x = across(case, index as f64 + 0.5);
            let _ = write!(path, "{command}{x:.1} {:.1}", y + height * (1.0 - part(*value)));
            command = 'L';
        }
        let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"black\" {style}/>");
    }
    text(
        svg,
        (LEFT + WIDTH / 2.0, y + height + 28.0),
        "middle",
        "",
        "seconds since the start",
    );
}

fn across(case: &Case, second: f64) -> f64 {
    LEFT + WIDTH * second / case.duration.ceil()
}

/// One level for each second.
fn steps(case: &Case, run: &[Second], level: impl Fn(&Second) -> f64) -> String {
    let mut path = String::new();
    for (index, second) in run.iter().enumerate() {
        let (from, until) = (across(case, index as f64), across(case, index as f64 + 1.0));
        let y = level(second);
        let _ = write!(path, "{from:.1} {y:.1} {until:.1} {y:.1} ");
    }
    path
}

/// The spike, the axes and what stands at them.
fn frame(svg: &mut String, case: &Case, (y, height): (f64, f64), ticks: &[(f64, String)], unit: &str) {
    let (from, until) = (across(case, case.disturbance.0), across(case, case.disturbance.1));
    let _ = writeln!(
        svg,
        "<rect x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{height}\" fill=\"#f1ede4\"/>",
        until - from
    );
    for (part, label) in ticks {
        let at = y + height * (1.0 - part);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}h{WIDTH}\" stroke=\"#ddd\" stroke-width=\"0.7\"/>"
        );
        text(svg, (LEFT - 5.0, at + 4.0), "end", &format!("fill=\"{GREY}\""), label);
    }
    let floor = y + height;
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {y}V{floor}H{}\" fill=\"none\" stroke=\"{GREY}\"/>",
        LEFT + WIDTH
    );
    let step = nice(case.duration / 8.0);
    let mut second = 0.0;
    while second <= case.duration {
        let x = across(case, second);
        let _ = writeln!(svg, "<path d=\"M{x:.1} {floor}v3\" stroke=\"{GREY}\"/>");
        // The upper part has the same axis as the lower one.
        if y > CALLS.0 {
            let label = format!("{second}");
            text(svg, (x, floor + 14.0), "middle", &format!("fill=\"{GREY}\""), &label);
        }
        second += step;
    }
    let middle = y + height / 2.0;
    let turned = format!("transform=\"rotate(-90 14 {middle})\"");
    text(svg, (14.0, middle), "middle", &turned, unit);
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, style: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{words}</text>"
    );
}
