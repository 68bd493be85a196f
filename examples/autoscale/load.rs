//! An open-loop load: calls come at random moments, whether or not the earlier ones were answered.

use super::{AnyResult, Look};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

const BASE: f64 = 20.0;
const SPIKE: f64 = 200.0;

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicUsize,
    answered: AtomicUsize,
    accepted: AtomicUsize,
    other: AtomicUsize,
    milliseconds: Mutex<Vec<u64>>,
    /// How often which other status came, with its problem's code; 0 stands for a broken connection.
    others: Mutex<BTreeMap<String, usize>>,
}

pub struct Load {
    counts: Arc<Counts>,
    length: f64,
    sender: JoinHandle<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Serialize)]
pub struct Summary {
    sent: usize,
    answered: usize,
    /// Answered 202: the reply waits under an id.
    accepted: usize,
    other: usize,
    /// What they were: how often which status and code, 0 for a broken connection.
    others: BTreeMap<String, usize>,
    p50_ms: u64,
    p99_ms: u64,
    most_replicas: usize,
    replica_seconds: f64,
}

/// SplitMix64: enough for random moments that come out the same for the same seed.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The spike lasts from a fifth of the time to a half of it.
fn rate_at(second: f64, length: f64) -> f64 {
    if (0.2..0.5).contains(&(second / length)) {
        SPIKE
    } else {
        BASE
    }
}

impl Load {
    pub fn start(url: String, length: Duration, seed: u64) -> Self {
        let counts = Arc::new(Counts::default());
        let began = Instant::now();
        let total = length.as_secs_f64();
        let sender = tokio::spawn({
            let counts = Arc::clone(&counts);
            async move {
                let http = reqwest::Client::builder()
                    .no_proxy()
                    .build()
                    .expect("a client without options");
                let (mut random, mut calls, mut at) = (Random(seed), Vec::new(), 0.0);
                loop {
                    at += -(1.0 - random.unit()).ln() / rate_at(at, total);
                    if at >= total {
                        return calls;
                    }
                    sleep_until(began + Duration::from_secs_f64(at)).await;
                    counts.sent.fetch_add(1, Ordering::Relaxed);
                    calls.push(tokio::spawn(one(http.clone(), url.clone(), Arc::clone(&counts))));
                }
            }
        });
        Self {
            counts,
            length: total,
            sender,
        }
    }

    pub fn rate(&self, second: f64) -> f64 {
        rate_at(second, self.length)
    }

    pub fn answered(&self) -> usize {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Calls whose client still waits.
    pub fn waiting(&self) -> usize {
        let Counts {
            sent,
            answered,
            accepted,
            other,
            ..
        } = &*self.counts;
        let done: usize = [answered, accepted, other]
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum();
        sent.load(Ordering::Relaxed).saturating_sub(done)
    }

    /// Waits for every call that was sent.
    pub async fn finish(self, looks: &[Look]) -> AnyResult<Summary> {
        for call in self.sender.await? {
            call.await?;
        }
        let mut times = std::mem::take(&mut *self.counts.milliseconds.lock().expect("nobody panics with it"));
        times.sort_unstable();
        let quantile = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(0);
        let steps = looks
            .windows(2)
            .map(|pair| pair[0].replicas as f64 * (pair[1].second - pair[0].second));
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        Ok(Summary {
            sent: count(&self.counts.sent),
            answered: count(&self.counts.answered),
            accepted: count(&self.counts.accepted),
            other: count(&self.counts.other),
            others: std::mem::take(&mut *self.counts.others.lock().expect("nobody panics with it")),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            most_replicas: looks.iter().map(|look| look.replicas).max().unwrap_or(0),
            replica_seconds: (steps.sum::<f64>() * 10.0).round() / 10.0,
        })
    }
}

async fn one(http: reqwest::Client, url: String, counts: Arc<Counts>) {
    let sent = Instant::now();
    let answer = http.post(url).body("text").send().await;
    let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
    let took = u64::try_from(sent.elapsed().as_millis()).unwrap_or(u64::MAX);
    let count = match status {
        200 => {
            counts.milliseconds.lock().expect("nobody panics with it").push(took);
            &counts.answered
        }
        202 => &counts.accepted,
        _ => {
            let text = match answer {
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            };
            let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let code = problem["code"].as_str().unwrap_or_default();
            let status = format!("{status} {code}").trim_end().to_owned();
            let mut others = counts.others.lock().expect("nobody panics with it");
            *others.entry(status).or_default() += 1;
            &counts.other
        }
    };
    count.fetch_add(1, Ordering::Relaxed);
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            answered,
            accepted,
            other,
            others,
            p50_ms,
            p99_ms,
            most_replicas,
            replica_seconds,
        } = self;
        writeln!(
            f,
            "{answered} of {sent} calls answered on their connection, {accepted} accepted for later, {other} otherwise"
        )?;
        if *other > 0 {
            writeln!(f, "otherwise, by status: {others:?}")?;
        }
        write!(
            f,
            "median {p50_ms} ms, 99 % within {p99_ms} ms; {most_replicas} pods at most, {replica_seconds} pod seconds"
        )
    }
}
