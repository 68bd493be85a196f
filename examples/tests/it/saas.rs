//! The promises of the `saas` example.

use crate::client::{Saas, until};
use crosspoint::{Platform, core::Isolation};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};

const API: &str = "/integrations/v1";

fn install(saas: &Saas, integration: &str, config: &Value, connections: &Value) -> String {
    let body = json!({ "integration": integration, "config": config, "connections": connections });
    let made = saas.post(&format!("{API}/installations"), &body).expect(201).json();
    made["id"].as_str().unwrap().to_owned()
}

fn connect(saas: &Saas) -> Value {
    let body = json!({ "connector": "ledgerly", "fields": { "api_key": "ledgerly-demo-key" } });
    let connection = saas.post(&format!("{API}/connections"), &body).expect(201).json();
    let test = saas.post(
        &format!("{API}/connections/{}/test", connection["id"].as_str().unwrap()),
        &json!({}),
    );
    assert_eq!(test.json()["ok"], true, "{}", test.body);
    json!({ "ledger": connection["id"] })
}

fn install_booking(saas: &Saas) -> String {
    install(
        saas,
        "ledgerly-booking",
        &json!({ "account": "revenue" }),
        &connect(saas),
    )
}

/// At what level scripts have to run here: sandboxed, unless this machine cannot do it.
fn level() -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let report = runtime.block_on(Platform::probe());
    if report.level < Isolation::Sandboxed {
        eprintln!("not tested at `sandboxed`: {:?}", report.missing);
        assert!(!required(), "`sandboxed` is missing: {:?}", report.missing);
    }
    report.level.min(Isolation::Sandboxed).to_string()
}

fn required() -> bool {
    std::env::var_os("CROSSPOINT_REQUIRE_ALL").is_some_and(|value| value == "1")
}

fn executions(saas: &Saas, installation: &str) -> Vec<Value> {
    let page = saas
        .get(&format!("{API}/installations/{installation}/executions?limit=100"))
        .expect(200)
        .json();
    page["items"].as_array().unwrap().clone()
}

fn order(saas: &Saas, item: &str) {
    saas.post("/api/orders", &json!({ "item": item, "cents": 4900 }))
        .expect(201);
}

/// The texts of everything that the provider has booked.
fn booked(data: &Path) -> Vec<String> {
    let lines = std::fs::read_to_string(data.join("ledgerly.jsonl")).unwrap_or_default();
    let bookings = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    bookings
        .map(|booking| booking["order"]["text"].as_str().unwrap().to_owned())
        .collect()
}

/// What stands in the files that the script has made, without the names of the columns.
fn exported(saas: &Saas, installation: &str, level: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for execution in executions(saas, installation) {
        if execution["flow"] != "export" || execution["status"] != "succeeded" {
            continue;
        }
        assert_eq!(execution["isolation"], level, "{execution}");
        let file = saas.get(&format!("/exports/{}", execution["id"].as_str().unwrap()));
        assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"));
        let mut text = file.body.lines();
        assert_eq!(text.next(), Some("id,created,item,cents"));
        let before = lines.len();
        lines.extend(text.map(ToOwned::to_owned));
        let summary = format!("{} orders exported to orders-from-", lines.len() - before);
        assert!(saas.get("/exports").body.contains(&summary), "{summary}");
    }
    lines
}

#[test]
fn orders_are_booked_and_exported_and_nothing_is_lost_by_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    // The connection's base URL belongs to the connector, so the provider keeps its port over the restart.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let saas = Saas::start(data, "ann", port);
    order(&saas, "before anything is installed");
    let booking = install_booking(&saas);
    let export = install(&saas, "csv-export", &json!({}), &json!({}));
    order(&saas, "first");
    until("the first order is booked", || (booked(data).len() == 1).then_some(()));

    saas.post("/provider/stop", &json!({})).expect(303);
    for number in 0..5 {
        order(&saas, &format!("while it is down {number}"));
    }
    until("an execution waits", || {
        executions(&saas, &booking)
            .iter()
            .any(|e| e["status"] == "waiting")
            .then_some(())
    });
    saas.kill();
    assert_eq!(booked(data).len(), 1, "nothing could be booked in the meantime");

    let saas = Saas::start(data, "ann", port);
    let ended = until("everything is finished after the restart", || {
        let all = executions(&saas, &booking);
        all.iter().all(|e| e["status"] == "succeeded").then_some(all)
    });
    let ids: BTreeSet<&str> = ended.iter().map(|e| e["id"].as_str().unwrap()).collect();
    assert_eq!(
        (ended.len(), ids.len()),
        (6, 6),
        "each order has one execution in the records"
    );
    let texts = booked(data);
    assert_eq!(texts.len(), 6, "each order is booked once: {texts:?}");
    let level = level();
    let lines = until("all orders are exported", || {
        let lines = exported(&saas, &export, &level);
        (lines.len() >= 7).then_some(lines)
    });
    let exported: BTreeSet<&str> = lines.iter().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(
        (lines.len(), exported.len()),
        (7, 7),
        "each order is exported once: {lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.contains(",while it is down 3,4900")),
        "{lines:?}"
    );
    assert!(saas.interrupt(), "Ctrl-C drains and ends well");
}

#[test]
fn a_script_asks_the_provider_over_the_broker_and_nobody_else_sees_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let saas = Saas::start(folder.path(), "ann", 0);
    if saas.get(&format!("{API}/catalogue/totals-report")).status() == 404 {
        assert!(!required(), "the report is not offered");
        eprintln!("skipped: the report needs Python and a level with a broker");
        return;
    }
    let booking = install_booking(&saas);
    let connections = saas.get(&format!("{API}/installations/{booking}")).json()["connections"].clone();
    let report = install(&saas, "totals-report", &json!({ "top": 2 }), &connections);
    for item in ["bell", "bicycle", "bell", "saddle", "bell"] {
        order(&saas, item);
    }
    until("all are booked", || (booked(folder.path()).len() == 5).then_some(()));
    let started = saas.post(&format!("{API}/installations/{report}/flows/report/start"), &json!({}));
    let id = started.expect(202).json()["id"].as_str().unwrap().to_owned();
    let ended = until("the report has ended", || {
        let execution = saas.get(&format!("{API}/executions/{id}")).json();
        execution["finished"].is_string().then_some(execution)
    });
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(ended["isolation"], level().as_str());
    assert!(
        ended["usage"]["received"].as_u64().unwrap() > 0,
        "it asked over the broker: {ended}"
    );
    let file = saas.get(&format!("/exports/{id}")).expect(200).body;
    assert_eq!(file, "item,total\nbell,147.00\nbicycle,49.00\n");
    let page = saas.get("/exports").expect(200).body;
    assert!(page.contains(&id) && page.contains("5 bookings of 3 items"), "{page}");
    let gus = saas.as_user("gus");
    assert!(!gus.get("/exports").expect(200).body.contains(&id));
    gus.get(&format!("/exports/{id}")).expect(404);
    saas.as_user("nobody").get(&format!("/exports/{id}")).expect(401);
}

#[test]
fn a_slow_service_is_answered_on_the_connection_or_by_id() {
    let folder = tempfile::tempdir().unwrap();
    let saas = Saas::start(folder.path(), "ann", 0);
    let scan = |ms: u32| saas.send("POST", &format!("/v1/scan?ms={ms}"), "text/plain", "clean text");
    std::thread::scope(|scope| {
        // Two run, the third waits for one of them and is answered all the same.
        let calls: Vec<_> = (0..3).map(|_| scope.spawn(|| scan(700))).collect();
        for call in calls {
            assert_eq!(call.join().unwrap().expect(200).json()["clean"], true);
        }
        // Longer than the three seconds for which a client is held.
        let calls: Vec<_> = (0..3).map(|_| scope.spawn(|| scan(3500))).collect();
        for call in calls {
            let accepted = call.join().unwrap().expect(202);
            let location = accepted.header("location").unwrap();
            let done = until("the call has ended", || {
                let status = saas.get(location);
                (status.status() == 303).then_some(status)
            });
            let reply = saas.get(done.header("location").unwrap()).expect(200);
            assert_eq!(reply.json()["bytes"], 10);
        }
    });
}

#[test]
fn strangers_and_other_companies_see_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ann = Saas::start(folder.path(), "ann", 0);
    let installation = install(&ann, "csv-export", &json!({}), &json!({}));
    let ours = format!("{API}/installations/{installation}");
    ann.get(&ours).expect(200);
    let gus = ann.as_user("gus");
    assert_eq!(gus.get(&ours).expect(404).json()["code"], "not-found");
    assert_eq!(gus.get(&format!("{API}/installations")).json()["items"], json!([]));
    let ben = ann.as_user("ben");
    ben.get(&ours).expect(200);
    let refused = ben.post(&format!("{ours}/pause"), &json!({})).expect(403);
    assert_eq!(refused.json()["code"], "capability-missing");
    let nobody = ann.as_user("nobody");
    assert_eq!(nobody.get(&ours).expect(401).json()["code"], "session-missing");
    until("the first metrics are published", || {
        let metrics = ann.get("/metrics").expect(200).body;
        metrics.contains("crosspoint_dispatch_requests_total").then_some(())
    });
    assert_eq!(
        ann.get(&format!("{API}/openapi.json")).expect(200).json()["openapi"],
        "3.1.0"
    );
}
