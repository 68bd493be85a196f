//! What a direct call allocates beyond its service: nothing, and one timer if it has to wait and may be adopted.

use crate::site::target;
use axum::body::Body;
use crosspoint_core::{CustomerId, Memory, SystemClock};
use crosspoint_gateway::{Config, DispatchLayer, Gateway};
use http::{Request, Response};
use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tower::{Layer, Service, service_fn};

/// Ready when it is polled for the second time, or at once.
struct Work {
    waits: bool,
}

impl Future for Work {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.waits) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(Response::new(Body::empty())))
    }
}

fn layer() -> DispatchLayer {
    let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
    let customer = CustomerId::new("acme").unwrap();
    gateway.layer(target()).customer(move |_| Some(customer.clone()))
}

/// The allocations of a hundred calls, after others that have filled what is made once.
fn allocations<S>(mut service: S) -> u64
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut calls = |count: usize| {
        for _ in 0..count {
            assert!(service.poll_ready(&mut cx).is_ready());
            let mut call = pin!(service.call(Request::new(Body::empty())));
            let answered = call.as_mut().poll(&mut cx).is_ready() || call.poll(&mut cx).is_ready();
            assert!(answered, "the service answers when it is polled again");
        }
    };
    calls(100);
    allocation_counter::measure(|| calls(100)).count_total
}

fn work(
    waits: bool,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Work> + Clone + Send + 'static
{
    service_fn(move |_: Request<Body>| Work { waits })
}

#[tokio::test]
async fn a_direct_call_allocates_nothing() {
    let alone = allocations(work(false));
    assert_eq!(allocations(layer().layer(work(false))), alone);
}

#[tokio::test]
async fn a_call_that_waits_allocates_its_timer_and_nothing_else() {
    let alone = allocations(work(true));
    assert_eq!(allocations(layer().adopt(false).layer(work(true))), alone);
    assert_eq!(allocations(layer().layer(work(true))), alone + 100, "one timer each");
}
