//! The plot: calls answered on their connection, and how long they took, over time. Written by hand, so that it needs
//! no drawing crate.

use crate::{Results, peers::Peer};
use crosspoint_simulator::{End, Report, case::Case};
use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 48.0;
const LEGEND: f64 = 170.0;

const COLOURS: [&str; 12] = [
    "#9aa0a6", "#c58a00", "#8d6e63", "#ab47bc", "#7e57c2", "#d81b60", "#00897b", "#43a047", "#546e7a", "#64b5f6",
    "#3949ab", "#e53935",
];

/// One value a second; `None` where there is nothing to show.
type Series = Vec<Option<f64>>;

/// An SVG document.
pub fn draw(case: &Case, results: &Results) -> String {
    let seconds = case.duration.ceil() as usize;
    let all = WIDTH + LEGEND;
    let (second, end) = (TOP + HEIGHT + 80.0, TOP + 2.0 * HEIGHT + 130.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {all} {end}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let answered: Vec<Series> = results.iter().map(|(_, report)| answered(report, seconds)).collect();
    let latency: Vec<Series> = results.iter().map(|(_, report)| latency(report, seconds)).collect();
    let most = answered.iter().flatten().flatten().copied().fold(1.0, f64::max);
    let linear = |value: f64| value / most;
    let logarithmic = |value: f64| (value.max(0.01).log10() + 2.0) / 4.0;
    panel(
        &mut svg,
        case,
        TOP,
        "answered on the connection, calls a second (by the second they were sent)",
    );
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        label(&mut svg, TOP, tick, &format!("{:.0}", tick * most));
    }
    panel(
        &mut svg,
        case,
        second,
        "99th percentile of those calls, seconds (logarithmic)",
    );
    for value in [0.01, 0.1, 1.0, 10.0, 100.0] {
        label(&mut svg, second, logarithmic(value), &format!("{value}"));
    }
    for (index, (peer, _)) in results.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let width = if *peer == Peer::Crosspoint { 2.5 } else { 1.3 };
        line(&mut svg, TOP, &answered[index], seconds, linear, colour, width);
        line(&mut svg, second, &latency[index], seconds, logarithmic, colour, width);
        let (x, y) = (WIDTH + 16.0, TOP + 18.0 * index as f64);
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            x + 18.0,
            x + 24.0,
            y + 4.0,
            peer.name()
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn on_connection(report: &Report, seconds: usize) -> Vec<Vec<f64>> {
    let mut all = vec![Vec::new(); seconds];
    for point in &report.timeline {
        if let (Some(End::Direct | End::Queued), Some(second)) = (point.end, all.get_mut(point.at as usize)) {
            second.push(point.after);
        }
    }
    all
}

fn answered(report: &Report, seconds: usize) -> Series {
    on_connection(report, seconds)
        .iter()
        .map(|second| Some(second.len() as f64))
        .collect()
}

fn latency(report: &Report, seconds: usize) -> Series {
    let p99 = |mut second: Vec<f64>| {
        second.sort_by(f64::total_cmp);
        second
            .get((second.len() * 99 / 100).min(second.len().saturating_sub(1)))
            .copied()
    };
    on_connection(report, seconds).into_iter().map(p99).collect()
}

/// Frame, title, time axis and the disturbance.
fn panel(svg: &mut String, case: &Case, top: f64, title: &str) {
    let x = |at: f64| LEFT + (WIDTH - LEFT) * at / case.duration;
    let (from, until) = (x(case.disturbance.0), x(case.disturbance.1));
    let width = WIDTH - LEFT;
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>\
         <rect x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{HEIGHT}\" fill=\"#fff3e0\"/>\
         <rect x=\"{LEFT}\" y=\"{top}\" width=\"{width}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#bbb\"/>",
        top - 12.0,
        until - from
    );
    let step = if case.duration > 60.0 { 20.0 } else { 2.0 };
    let mut at = 0.0;
    while at <= case.duration {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{at} s</text>",
            x(at),
            top + HEIGHT + 18.0
        );
        at += step;
    }
}

fn label(svg: &mut String, top: f64, part: f64, text: &str) {
    let y = top + HEIGHT * (1.0 - part);
    let _ = writeln!(
        svg,
        "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{WIDTH}\" y2=\"{y:.1}\" stroke=\"#eee\"/>\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{text}</text>",
        LEFT - 8.0,
        y + 4.0
    );
}

fn line(
    svg: &mut String,
    top: f64,
    series: &Series,
    seconds: usize,
    scale: impl Fn(f64) -> f64,
    colour: &str,
    width: f64,
) {
    let mut path = String::new();
    let mut drawing = false;
    for (second, value) in series.iter().enumerate() {
        let Some(value) = value else {
            drawing = false;
            continue;
        };
        let x = LEFT + (WIDTH - LEFT) * (second as f64 + 0.5) / seconds as f64;
        let y = top + HEIGHT * (1.0 - scale(*value).clamp(0.0, 1.0));
        let _ = write!(path, "{}{x:.1} {y:.1} ", if drawing { "L" } else { "M" });
        drawing = true;
    }
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
    );
}
