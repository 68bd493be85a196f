//! What a call costs on its way to a service that does nothing.
//!
//! Group `layer`: the direct path, in thread processor time. `tower_stack` is what a host would otherwise mount:
//! `load_shed` + `concurrency_limit` + `timeout`; `crosspoint` is a layer that names nobody, `crosspoint_customer` one that
//! knows its callers and adopts what takes too long, `crosspoint_no_adoption` knows them and lets them wait. The variants
//! `.._pending` call a service that is not ready the first time it is polled. `arc` is one clone and drop of an `Arc`: two
//! of the four atomic changes that a call cannot do without. Group `gate`: the gate alone.

mod floor;
mod flow;

use axum::body::Body;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use crosspoint_benches::thread_time;
use crosspoint_core::{CustomerId, Memory, SystemClock, TargetId};
use crosspoint_gateway::{
    Config, Gateway,
    gate::{Gate, Refusal},
    outcome::Outcome,
};
use http::{Request, Response};
use std::{
    convert::Infallible,
    future::{Future, Ready, poll_fn, ready},
    hint::black_box,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{runtime::Runtime, task::unconstrained};
use tower::{Service, ServiceBuilder, service_fn};
use tower_layer::Layer;

const PERMITS: u32 = 64;

fn noop(_: Request<Body>) -> Ready<Result<Response<Body>, Infallible>> {
    ready(Ok(Response::new(Body::empty())))
}

/// Not ready the first time it is polled.
#[derive(Default)]
struct Once {
    polled: bool,
}

impl Future for Once {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polled {
            return Poll::Ready(Ok(Response::new(Body::empty())));
        }
        self.polled = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn once(_: Request<Body>) -> Once {
    Once::default()
}

/// Outside tokio's cooperative budget, which `load_shed` would take for overload.
fn calls<S>(group: &mut BenchmarkGroup<'_, WallTime>, id: &str, runtime: &Runtime, mut service: S)
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|calls| {
            runtime.block_on(unconstrained(async {
                let before = thread_time();
                for _ in 0..calls {
                    assert!(poll_fn(|cx| service.poll_ready(cx)).await.is_ok(), "not ready");
                    let response = service.call(black_box(Request::new(Body::empty()))).await;
                    assert!(black_box(response).is_ok(), "refused");
                }
                thread_time() - before
            }))
        });
    });
}

fn layer(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
    let known = CustomerId::new("acme").unwrap();
    let target = |name: &str| gateway.layer(TargetId::new(name).unwrap()).permits(PERMITS);
    let plain = target("plain");
    let customer = target("customer").customer(move |_| Some(known.clone()));
    let no_adoption = customer.clone().adopt(false);
    let stack = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(PERMITS as usize)
        .timeout(Duration::from_secs(30));

    let mut group = criterion.benchmark_group("layer");
    let (now, later) = (service_fn(noop), service_fn(once));
    calls(&mut group, "noop", &runtime, now);
    calls(&mut group, "tower_stack", &runtime, stack.service(now));
    calls(&mut group, "crosspoint", &runtime, plain.layer(now));
    calls(&mut group, "crosspoint_customer", &runtime, customer.layer(now));
    calls(&mut group, "crosspoint_no_adoption", &runtime, no_adoption.layer(now));
    calls(&mut group, "noop_pending", &runtime, later);
    calls(&mut group, "tower_stack_pending", &runtime, stack.service(later));
    calls(&mut group, "crosspoint_pending", &runtime, plain.layer(later));
    calls(
        &mut group,
        "crosspoint_customer_pending",
        &runtime,
        customer.layer(later),
    );
    calls(
        &mut group,
        "crosspoint_no_adoption_pending",
        &runtime,
        no_adoption.layer(later),
    );
    let shared = Arc::new(0);
    group.bench_function("arc", |bencher| {
        bencher.iter_custom(|times| {
            let before = thread_time();
            for _ in 0..times {
                black_box(Arc::clone(black_box(&shared)));
            }
            thread_time() - before
        });
    });
    group.finish();
}

fn gate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gate");
    let mut bench = |id: &str, gate: &Arc<Gate>, expected: Option<Refusal>| {
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|calls| {
                let before = thread_time();
                for _ in 0..calls {
                    match black_box(gate).enter() {
                        Ok(permit) => permit.finish(Outcome::Success),
                        Err(refusal) => assert_eq!(Some(refusal), expected),
                    }
                }
                thread_time() - before
            });
        });
    };
    bench("admit_leave", &Arc::new(Gate::new(PERMITS)), None);
    bench("refused_saturated", &Arc::new(Gate::new(0)), Some(Refusal::Saturated));
    let tripped = Arc::new(Gate::new(PERMITS));
    for _ in 0..3 {
        tripped.enter().unwrap().finish(Outcome::NotStarted);
    }
    bench("refused_cool_off", &tripped, Some(Refusal::CoolOff));
    group.finish();
}

criterion_group!(benches, layer, gate, flow::group);
criterion_main!(benches);
