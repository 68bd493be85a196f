//! What somebody could do who knows everything.

use crate::world::TICK;

/// The share of calls, from 0 to 1, that can be answered within `hold` seconds of their arrival by workers that are
/// there as `capacity` says (by tenths of a second, in workers of ordinary speed): first come first served, without a
/// gap, and what cannot make it any more is dropped first. No real dispatcher knows which calls that will be.
///
/// `calls` are arrivals with their work in seconds, by arrival.
///
/// ```
/// // One worker, two calls of a second each at once, and nobody waits longer than two seconds and a half.
/// let bound = crosspoint_simulator::bound(&[(0.0, 1.0), (0.0, 1.0)], &[1.0; 100], 2.5);
/// assert!((bound - 0.5).abs() < 1e-9);
/// ```
#[must_use]
pub fn bound(calls: &[(f64, f64)], capacity: &[f64], hold: f64) -> f64 {
    const STEP: f64 = 0.005;
    if calls.is_empty() {
        return 1.0;
    }
    let end = capacity.len() as f64 * TICK;
    let most = calls.iter().map(|(_, work)| *work).fold(0.0, f64::max);
    let (mut head, mut arrived, mut served) = (0, 0, 0_u64);
    let (mut credit, mut step) = (0.0, 0_u64);
    loop {
        step += 1;
        let now = step as f64 * STEP;
        if now > end || head >= calls.len() {
            return served as f64 / calls.len() as f64;
        }
        while calls.get(arrived).is_some_and(|(at, _)| *at <= now) {
            arrived += 1;
        }
        credit += capacity.get((now / TICK) as usize).copied().unwrap_or_default() * STEP;
        while let Some((at, work)) = calls.get(head).filter(|_| head < arrived) {
            if now - at > hold - work {
                head += 1;
            } else if credit >= *work {
                credit -= work;
                served += 1;
                head += 1;
            } else {
                break;
            }
        }
        if head >= arrived {
            credit = credit.min(most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_capacity_serves_half_in_the_long_run() {
        let calls: Vec<(f64, f64)> = (0..4000).map(|n| (f64::from(n) / 40.0, 0.05)).collect();
        let bound = bound(&calls, &vec![1.0; 1200], 1.0);
        assert!((0.5..0.53).contains(&bound), "{bound}");
    }

    #[test]
    fn nobody_is_served_by_nothing() {
        assert!(bound(&[(0.0, 0.1)], &[0.0; 50], 1.0) < 1e-9);
    }
}
