//! One client: sends, waits, leaves, comes back, and asks for what was accepted.

use crate::{
    Random,
    case::Client,
    front::{CUSTOMER, Door, request},
    ledger::{End, Stage, customer_name},
    pool::WAY,
    time::seconds,
    world::World,
};
use axum::body::Body;
use crosspoint_core::InvocationId;
use http::{Request, Response, StatusCode, header};
use std::sync::Arc;
use tokio::time::sleep;
use tower::ServiceExt;

/// A 202 that comes this many seconds before the end of the hold, or later, came at its end.
const HOLD_ENDS: f64 = 0.25;

/// How a try ended.
enum Tried {
    Answer(End),
    Accepted(String),
    /// Worth another try.
    Failed(End),
}

/// Makes a call and follows it to its end.
pub(crate) async fn call(world: Arc<World>, call: usize, intended: f64) {
    world.site.time.until(intended).await;
    tries(&world, call).await;
}

/// Goes on with a call whose connection was lost with the gateway.
pub(crate) async fn resume(world: Arc<World>, call: usize) {
    let stage = world.ledger.book().calls.get(call).map(|call| call.stage.clone());
    let Some(stage) = stage else { return };
    match stage {
        Stage::Trying if again(&world, call, End::Cut).await => tries(&world, call).await,
        Stage::Accepted(place) => follow(&world, call, &place).await,
        Stage::Trying | Stage::Ended(..) => {}
    }
}

async fn tries(world: &Arc<World>, call: usize) {
    loop {
        match send(world, call).await {
            Tried::Answer(end) => return world.end(call, end),
            Tried::Accepted(place) => {
                world.ledger.stage(call, Stage::Accepted(place.clone()));
                return follow(world, call, &place).await;
            }
            Tried::Failed(end) if !again(world, call, end).await => return,
            Tried::Failed(_) => {}
        }
    }
}

/// Waits before the next try; false, and the call is over, if there is none.
async fn again(world: &World, call: usize, end: End) -> bool {
    let client = &world.site.case.load.client;
    let tries = world.ledger.book().calls.get(call).map_or(u32::MAX, |call| call.tries);
    if tries > client.retries || !world.may_retry(client) {
        world.end(call, end);
        return false;
    }
    let mut random = Random::keyed(world.site.seed ^ 0xBACC, (call as u64) << 8 | u64::from(tries));
    let most = (client.backoff * 2f64.powi(tries.saturating_sub(1) as i32)).min(8.0);
    sleep(seconds(most * random.unit())).await;
    true
}

/// When the client of a request goes away by itself.
fn leaves(client: &Client, now: f64, seed: u64, number: usize) -> Option<f64> {
    let patience = client.patience.map(|patience| now + patience);
    let storm = client.storms.iter().copied().find(|storm| *storm > now);
    let storm = storm.filter(|_| Random::keyed(seed ^ 0x5702, number as u64).unit() < client.storm_share);
    match (patience, storm) {
        (Some(patience), Some(storm)) => Some(patience.min(storm)),
        (one, other) => one.or(other),
    }
}

async fn send(world: &Arc<World>, call: usize) -> Tried {
    let (time, ledger) = (&world.site.time, &world.ledger);
    let now = time.now();
    let Some((customer, class)) = ledger.book().calls.get(call).map(|call| (call.customer, call.class)) else {
        return Tried::Answer(End::Cut);
    };
    let number = ledger.send(call, now);
    let connection = Connection {
        world,
        number,
        over: false,
    };
    let Some(door) = world.door() else {
        connection.close(None, false);
        return Tried::Failed(End::Cut);
    };
    let work = exchange(&door, request(customer, class, number));
    let response = match leaves(&world.site.case.load.client, now, world.site.seed, number) {
        None => work.await,
        Some(at) => {
            tokio::select! {
                biased;
                response = work => response,
                () = time.until(at) => {
                    connection.close(None, true);
                    return Tried::Failed(End::Left);
                }
            }
        }
    };
    let way = response.headers().get(WAY).map(|way| way == "queued");
    let status = response.status();
    let after = (way == Some(false) && status != StatusCode::ACCEPTED).then(|| time.now() - now);
    connection.close(after, false);
    match (status, way) {
        (StatusCode::ACCEPTED, _) => {
            let held = time.now() - now > world.site.case.gateway.hold - HOLD_ENDS;
            if held {
                ledger.in_vain(number);
            }
            accepted(world, &response)
        }
        (_, Some(queued)) if status.is_success() => Tried::Answer(if queued { End::Queued } else { End::Direct }),
        (_, Some(_)) => Tried::Failed(End::Failed),
        (_, None) => Tried::Failed(refusal(&response)),
    }
}

/// A problem says what it is about: of a call that has ended without a reply it is its end.
fn refusal(response: &Response<Body>) -> End {
    match response.status() {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => End::Refused,
        _ => End::Failed,
    }
}

fn accepted(world: &World, response: &Response<Body>) -> Tried {
    let location = response.headers().get(header::LOCATION);
    let place = location.and_then(|place| place.to_str().ok()).unwrap_or_default();
    let id = place.rsplit('/').next().and_then(|id| id.parse::<InvocationId>().ok());
    if !id.is_some_and(|id| world.site.store.has_acknowledged(id)) {
        world.ledger.book().unstored += 1;
    }
    Tried::Accepted(place.to_owned())
}

async fn exchange(door: &Door, request: Request<Body>) -> Response<Body> {
    let Ok(response) = door.service.clone().oneshot(request).await;
    response
}

/// Asks for an accepted call until it has ended, more and more seldom.
async fn follow(world: &Arc<World>, call: usize, place: &str) {
    let id = place.rsplit('/').next().unwrap_or_default();
    let customer = world.ledger.book().calls.get(call).map_or(0, |call| call.customer);
    let first = world.site.case.load.client.ask;
    let mut pause = first;
    loop {
        sleep(seconds(pause)).await;
        pause = f64::min(pause * 2.0, first * 15.0);
        let Some(router) = world.door().and_then(|door| door.requests) else {
            continue;
        };
        let status = ask(&router, customer, &format!("/{id}")).await.status();
        let end = match status {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => continue,
            StatusCode::SEE_OTHER => {
                let response = ask(&router, customer, &format!("/{id}/response")).await;
                match response.status() {
                    StatusCode::SERVICE_UNAVAILABLE if response.headers().contains_key(header::RETRY_AFTER) => continue,
                    _ if response.headers().contains_key(WAY) && response.status().is_success() => End::Polled,
                    StatusCode::NOT_FOUND | StatusCode::GONE => End::Lost,
                    _ => End::Failed,
                }
            }
            _ => End::Lost,
        };
        let replied = id.parse().ok().and_then(|id| world.site.store.replied(id));
        return world.end_at(call, end, replied.filter(|_| end == End::Polled));
    }
}

async fn ask(router: &axum::Router, customer: usize, path: &str) -> Response<Body> {
    let request = Request::get(path).header(CUSTOMER, customer_name(customer));
    let request = request.body(Body::empty()).unwrap_or_default();
    let Ok(response) = router.clone().oneshot(request).await;
    response
}

/// A connection counts as open until it is closed or its task is dropped.
struct Connection<'a> {
    world: &'a World,
    number: usize,
    over: bool,
}

impl Connection<'_> {
    fn close(mut self, answered: Option<f64>, left: bool) {
        self.over = true;
        self.world.ledger.close(self.number, answered, left);
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.world.ledger.close(self.number, None, false);
        }
    }
}
