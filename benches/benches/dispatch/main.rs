//! What a call costs on its way to a service that does nothing.
//!
//! Group `layer`: the direct path, in thread processor time. `tower_stack` is what a host would otherwise mount:
//! `load_shed` + `concurrency_limit` + `timeout`.

mod flow;

use axum::body::Body;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use crosspoint_benches::thread_time;
use crosspoint_core::{CustomerId, Memory, SystemClock, TargetId};
use crosspoint_gateway::{Config, Gateway};
use http::{Request, Response};
use std::{
    convert::Infallible,
    future::{Ready, poll_fn, ready},
    hint::black_box,
    sync::Arc,
    time::Duration,
};
use tokio::{runtime::Runtime, task::unconstrained};
use tower::{Service, ServiceBuilder, service_fn};
use tower_layer::Layer;

const PERMITS: u32 = 64;

fn noop(_: Request<Body>) -> Ready<Result<Response<Body>, Infallible>> {
    ready(Ok(Response::new(Body::empty())))
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
    let customer = CustomerId::new("acme").unwrap();
    let dispatch = gateway
        .layer(TargetId::new("noop").unwrap())
        .permits(PERMITS)
        .customer(move |_| Some(customer.clone()));
    let stack = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(PERMITS as usize)
        .timeout(Duration::from_secs(30));

    let mut group = criterion.benchmark_group("layer");
    calls(&mut group, "noop", &runtime, service_fn(noop));
    calls(&mut group, "tower_stack", &runtime, stack.service(service_fn(noop)));
    calls(&mut group, "crosspoint", &runtime, dispatch.layer(service_fn(noop)));
    group.finish();
}

criterion_group!(benches, layer, flow::group);
criterion_main!(benches);
