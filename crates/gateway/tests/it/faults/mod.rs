//! Bad input and faults: what can go wrong, and where it is shown that the promise holds all the same: effects at least
//! once; one stored reply per call; never a 202 without a durable acknowledgement.
//!
//! | What goes wrong | Shown by |
//! |---|---|
//! | oversized bodies | `clients::a_body_that_is_too_large_to_be_stored_..`, `divert::a_body_too_large_for_the_queue_..` |
//! | truncated bodies | `clients::a_body_that_is_cut_off_..`, `trouble::a_body_that_does_not_come_is_given_up` |
//! | slow bodies | `clients::a_slow_body_holds_no_permit_..`, `trouble::a_body_that_does_not_come_is_given_up` |
//! | one customer's slow bodies | `quota::one_customers_slow_bodies_leave_room_for_those_of_others` |
//! | one customer fills the queue | `quota::a_customer_with_too_many_waiting_calls_..`, `quota::a_customer_whose_waiting_calls_..` |
//! | a client leaves before or in its body | `clients::a_client_that_leaves_before_or_during_its_body_..` |
//! | a client leaves while its call runs directly | `clients::a_direct_call_ends_with_its_client` |
//! | a client leaves while its call is stored | `clients::a_client_that_leaves_while_its_call_is_stored_..` |
//! | a client leaves while it is held | `hold::a_call_whose_client_has_left_is_cancelled_..`, `races::leaving_..` |
//! | a client leaves while it waits in memory | `hold::a_client_that_leaves_while_it_waits_in_memory_..` |
//! | a client leaves a long poll | `status::a_client_that_leaves_a_long_poll_gives_its_place_back` |
//! | a client leaves in an adoption | `clients::an_adopted_call_does_not_need_its_client_..`, `adopt::after_a_failed_adoption_..` |
//! | duplicate and conflicting keys | `keys::a_repeat_of_a_stored_call_attaches_to_it`, `keys::a_key_that_the_gateway_honours_..` |
//! | two principals with one key | `keys::a_repeat_of_a_stored_call_attaches_to_it` |
//! | a query that differs | `keys::another_path_query_or_content_type_is_another_request` |
//! | a key retried at another gateway | `keys::a_repeat_at_another_gateway_..`, `kills::a_key_finds_its_call_after_the_gateway_died` |
//! | clock jumps | `leases::the_stores_clock_jumps`, SQLite's own `turns` |
//! | skew between processes | `leases::the_clocks_of_two_processes_differ` |
//! | store errors at every call | `store` |
//! | disk full | crate `crosspoint-sqlite`: `disk_full` |
//! | a worker stalls past its lease and settles | `leases::a_worker_that_stalls_..` |
//! | ten thousand waiting holders | `hold::ten_thousand_holders_are_answered_by_a_few_questions` |
//! | a handler panics: directly | `direct::a_panicking_handler_gives_its_permit_back` |
//! | .. from the queue | `divert::a_panic_ends_what_may_not_be_repeated_..` |
//! | .. adopted | `adopt::an_adopted_attempt_that_panics_is_a_dead_letter` |
//! | .. recorded, later | `leases::a_recorded_attempt_that_panics_..`, `later::an_answer_that_never_comes_is_a_lost_lease` |
//! | work that takes its workers down | `again::a_call_that_takes_its_worker_down_becomes_a_dead_letter` |
//! | restart under backlog | `kills::after_a_restart_the_oldest_goes_first` |
//! | two busy processes on one file | crate `crosspoint-sqlite`: `busy`, `processes` |
//! | a kill at every step of every way | `kills::at_every_step_of_every_way` |

mod fair;
mod keys;
mod kills;
mod leases;
mod races;
mod store;

use crate::site::{Answer, Site, from_ann};
use axum::body::Body;
use crosspoint_gateway::{DispatchLayer, Keys};
use http::Request;
use std::time::Duration;
use tokio::{task::JoinHandle, time::sleep};

/// All times are a tenth of the usual ones: what is simulated for a second costs ten looks of the control.
const HOLD: Duration = Duration::from_secs(1);

/// A heartbeat is sent every second.
const LEASE: Duration = Duration::from_secs(3);

/// Runs a case on a runtime of its own: what it leaves behind, dead processes included, ends with it.
fn in_a_process<T>(case: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(case)
}

fn brisk(route: impl FnOnce(DispatchLayer) -> DispatchLayer) -> Site {
    Site::configured(route, |config| {
        config.hold = HOLD;
        config.lease = LEASE;
        config.poll = HOLD / 10;
        config.stop_grace = HOLD;
    })
}

/// How a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// With a permit.
    Direct,
    /// Its client does not wait, and it finds a permit with the commit that stores it.
    Asynchronous,
    /// Its client waits until another call gives its permit back.
    Held,
    /// It starts with a permit and outlives the hold.
    Adopted,
    /// It is recorded before it is tried.
    Recorded,
}

const WAYS: [Way; 5] = [Way::Direct, Way::Asynchronous, Way::Held, Way::Adopted, Way::Recorded];

impl Way {
    fn route(self) -> impl Fn(DispatchLayer) -> DispatchLayer {
        let keys = match self {
            Self::Recorded => Keys::Gateway,
            _ => Keys::Target,
        };
        move |layer| layer.keys(keys)
    }

    fn site(self) -> Site {
        brisk(self.route())
    }

    fn request(self, method: &str) -> Request<Body> {
        let request = from_ann(method, "/v1/scan/1");
        let request = match self {
            Self::Asynchronous => request.header("prefer", "respond-async"),
            Self::Recorded => request.header("idempotency-key", "k"),
            _ => request,
        };
        request.body(Body::from("x")).unwrap()
    }

    /// Sends the call and lets it do what its way says.
    async fn go(self, site: &Site, method: &str) -> JoinHandle<Answer> {
        match self {
            Self::Direct | Self::Asynchronous | Self::Recorded => {
                let call = site.send(self.request(method));
                sleep(HOLD / 10).await;
                site.scanner.finish(1);
                call
            }
            Self::Held => {
                let other = site.send(crate::site::post(0, "other"));
                site.scanner.begun(1).await;
                let call = site.send(self.request(method));
                sleep(HOLD / 10).await;
                site.scanner.finish(1);
                assert_eq!(other.await.unwrap().status, 201);
                sleep(HOLD / 10).await;
                site.scanner.finish(1);
                call
            }
            Self::Adopted => {
                let call = site.send(self.request(method));
                // For three heartbeats.
                sleep(HOLD + HOLD * 3 + HOLD / 2).await;
                site.scanner.finish(1);
                call
            }
        }
    }

    /// How many calls of others the way needs.
    fn others(self) -> usize {
        usize::from(self == Self::Held)
    }
}
