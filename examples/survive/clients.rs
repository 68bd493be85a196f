//! The clients: they call, and believe what they are told.

use crate::{
    Random,
    recovery::{Recoveries, Recovery},
};
use reqwest::{Client, StatusCode, header, redirect};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

const CLIENTS: usize = 24;

/// Calls of all clients together that were accepted and have not ended yet, at most.
const OPEN: usize = 300;

/// What a client is sure of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// The answer, on the connection.
    Answered,
    /// An id, and no more yet.
    Accepted,
    /// An id, and later the answer.
    AnsweredById,
    /// An id, and later a definite answer that is no success.
    Failed(String),
    /// An id, and later nothing: it is not known any more.
    Forgotten,
}

/// Calls that were acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    known: Mutex<BTreeMap<u64, Known>>,
    unacknowledged: AtomicU64,
    answers: Notify,
    recoveries: Recoveries,
}

/// What the ledger says in the end.
pub struct Acknowledged {
    pub calls: BTreeMap<u64, Known>,
    pub unacknowledged: u64,
    /// One for each kill.
    pub recoveries: Vec<Recovery>,
}

impl Ledger {
    fn note(&self, call: u64, known: Known) {
        let answer = matches!(known, Known::Answered | Known::AnsweredById);
        let open = known == Known::Accepted;
        let mut calls = self.known.lock().unwrap();
        calls.insert(call, known);
        if !open {
            self.recoveries.ended(call);
        }
        drop(calls);
        if answer {
            self.answers.notify_waiters();
        }
    }

    /// A process is killed now.
    pub fn killed(&self) {
        let calls = self.known.lock().unwrap();
        let open = calls.iter().filter(|(_, known)| **known == Known::Accepted);
        self.recoveries.begin(open.map(|(call, _)| *call).collect());
    }

    /// Waits until a client gets an answer.
    pub async fn next_answer(&self) {
        self.answers.notified().await;
    }

    pub fn take(&self) -> Acknowledged {
        Acknowledged {
            calls: std::mem::take(&mut self.known.lock().unwrap()),
            unacknowledged: self.unacknowledged.load(Ordering::Relaxed),
            recoveries: self.recoveries.take(),
        }
    }
}

pub struct Clients {
    shared: Arc<Shared>,
    calling: JoinSet<()>,
}

struct Shared {
    client: Client,
    url: String,
    ledger: Arc<Ledger>,
    next: AtomicU64,
    stopping: AtomicBool,
    open: Arc<Semaphore>,
}

impl Clients {
    pub fn start(url: String, ledger: Arc<Ledger>, seed: u64) -> Self {
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build();
        let shared = Arc::new(Shared {
            client: client.expect("a client without TLS settings"),
            url,
            ledger,
            next: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            open: Arc::new(Semaphore::new(OPEN)),
        });
        let mut calling = JoinSet::new();
        for number in 0..CLIENTS {
            let random = Random::new(seed.wrapping_add(number as u64 + 1));
            calling.spawn(Arc::clone(&shared).call_always(random));
        }
        Self { shared, calling }
    }

    /// Stops calling and waits until every accepted call has ended. Answers how many have not within `most`.
    pub async fn finish(mut self, most: Duration) -> usize {
        self.shared.stopping.store(true, Ordering::Relaxed);
        while self.calling.join_next().await.is_some() {}
        let all = u32::try_from(OPEN).expect("small");
        let ended = timeout(most, self.shared.open.acquire_many(all)).await;
        if ended.is_ok() {
            0
        } else {
            OPEN - self.shared.open.available_permits()
        }
    }
}

impl Shared {
    async fn call_always(self: Arc<Self>, mut random: Random) {
        while !self.stopping.load(Ordering::Relaxed) {
            // Taken before the call, so that an id is never left without somebody who asks for it.
            let open = Arc::clone(&self.open).acquire_owned().await.expect("never closed");
            let call = self.next.fetch_add(1, Ordering::Relaxed);
            match self.call(call, random.below(4) == 0).await {
                Ok(Some(location)) => {
                    let shared = Arc::clone(&self);
                    tokio::spawn(async move {
                        let known = shared.ask(call, &location).await;
                        shared.ledger.note(call, known);
                        drop(open);
                    });
                }
                Ok(None) => {}
                Err(_) => {
                    // Nobody has promised anything. Whether it will have its effect is open.
                    self.ledger.unacknowledged.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(20)).await;
                }
            }
            sleep(Duration::from_millis(random.below(30))).await;
        }
    }

    /// Answers with the place to ask at, if the call was accepted.
    async fn call(&self, call: u64, asynchronously: bool) -> Result<Option<String>, String> {
        let url = format!("{}/orders/{call}", self.url);
        let mut request = self.client.post(url).header("x-customer", customer(call));
        if asynchronously {
            request = request.header("prefer", "respond-async");
        }
        let response = request.send().await.map_err(|error| error.to_string())?;
        match response.status() {
            StatusCode::OK => {
                let body = response.text().await.map_err(|error| error.to_string())?;
                assert_eq!(body, call.to_string(), "the answer to another call");
                self.ledger.note(call, Known::Answered);
                Ok(None)
            }
            StatusCode::ACCEPTED => {
                self.ledger.note(call, Known::Accepted);
                Ok(Some(location(&response)?))
            }
            status => Err(status.to_string()),
        }
    }

    /// Asks until the call has ended.
    async fn ask(&self, call: u64, location: &str) -> Known {
        loop {
            match self.get(call, location).await {
                Ok(Some(known)) => return known,
                Ok(None) => sleep(Duration::from_millis(100)).await,
                // The gateway is being killed.
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn get(&self, call: u64, at: &str) -> Result<Option<Known>, String> {
        let get = |at: &str| {
            let request = self.client.get(format!("{}{at}", self.url));
            request.header("x-customer", customer(call)).send()
        };
        let status = get(at).await.map_err(|error| error.to_string())?;
        match status.status() {
            StatusCode::OK => return Ok(None),
            StatusCode::SEE_OTHER => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(Some(Known::Forgotten)),
            other => return Err(other.to_string()),
        }
        let reply = get(&location(&status)?).await.map_err(|error| error.to_string())?;
        let success = reply.status().is_success();
        let body = reply.text().await.map_err(|error| error.to_string())?;
        Ok(Some(match success {
            true if body == call.to_string() => Known::AnsweredById,
            _ => Known::Failed(body),
        }))
    }
}

fn customer(call: u64) -> String {
    format!("customer-{}", call % 10)
}

fn location(response: &reqwest::Response) -> Result<String, String> {
    let location = response.headers().get(header::LOCATION);
    let text = location.and_then(|location| location.to_str().ok());
    text.map(ToOwned::to_owned).ok_or_else(|| "no location".to_owned())
}
