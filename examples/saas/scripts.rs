//! The two integrations that are scripts. Each makes a CSV file, which is the result of its execution; none of them needs a
//! folder of the host's, so both run in a sandbox.

use crate::orders::{Order, Orders};
use async_trait::async_trait;
use crosspoint::{
    core::{AnyIntegration, IsolationReport, Poll, Polled},
    prelude::*,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{process::Command, time::Duration};

/// Orders in one file, at most.
const BATCH: usize = 500;

/// How scripts run on this machine.
#[derive(Debug)]
pub struct Ground {
    /// What they ask for.
    pub isolation: Isolation,
    /// Which Python they are run by, if there is one.
    pub python: Option<&'static str>,
    /// What a person should know about it.
    pub notes: Vec<String>,
}

impl Ground {
    /// `Sandboxed` is what a script asks for unless it says otherwise. This demonstration also has to run where that is not
    /// to be had, and all of its scripts are its own: so there, and said aloud, they ask for what this machine has proved.
    /// A host that runs the code of others leaves the level alone and has them refused.
    pub fn of(report: &IsolationReport) -> Self {
        let isolation = report.level.min(Isolation::Sandboxed);
        let mut notes = vec![format!("scripts run at level `{isolation}`")];
        if isolation < Isolation::Sandboxed {
            notes.push("and not at `sandboxed`, which this machine has not proved:".to_owned());
            notes.extend(report.missing.iter().cloned());
            notes.push("`cargo run --example doctor` tells more".to_owned());
        }
        let mut python = python();
        if python.is_none() {
            notes.push("\"Totals report\" is not offered: there is no Python".to_owned());
        } else if isolation < Isolation::Confined {
            notes.push("\"Totals report\" is not offered: below `confined` there is no broker".to_owned());
            python = None;
        }
        Self {
            isolation,
            python,
            notes,
        }
    }

    /// The integrations that can run here.
    pub fn integrations(&self, orders: &Orders) -> Vec<AnyIntegration> {
        let mut all = vec![export(orders.clone(), self.isolation).into()];
        all.extend(self.python.map(|python| report(python, self.isolation).into()));
        all
    }
}

/// A Python that every user of this machine may enter: what is first in PATH is often somebody's own.
fn python() -> Option<&'static str> {
    let runs = |python: &&str| {
        let version = Command::new(python).arg("--version").output();
        version.is_ok_and(|version| version.status.success())
    };
    ["/usr/bin/python3", "/usr/local/bin/python3", "python3"]
        .into_iter()
        .find(runs)
}

/// How orders are exported
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportSettings {
    /// Whether files begin with the names of the columns
    #[schemars(title = "Header line")]
    #[serde(default = "yes")]
    header: bool,
}

fn yes() -> bool {
    true
}

/// Orders that go into one file.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Batch {
    /// After the first of its orders, so that the same orders never make a second file.
    file: String,
    /// Number, time, item, cents.
    orders: Vec<(u64, String, String, u64)>,
}

/// Looks for new orders; the cursor is the last one that was exported.
struct NewOrders(Orders);

#[async_trait]
impl Poll for NewOrders {
    type Config = ExportSettings;
    type Cursor = u64;
    type Item = Batch;

    async fn poll(&self, cx: &FlowContext<ExportSettings>, last: Option<u64>) -> Result<Polled<Batch, u64>> {
        let last = last.unwrap_or(0);
        let mut new = self.0.list(&cx.run().customer);
        new.retain(|order| order.id > last);
        let more = new.len() > BATCH;
        new.truncate(BATCH);
        let (Some(first), Some(end)) = (new.first(), new.last()) else {
            return Ok(Polled::new(last));
        };
        let (file, cursor) = (format!("orders-from-{:05}.csv", first.id), end.id);
        let row = |order: Order| (order.id, order.created, order.item, order.cents);
        let batch = Batch {
            file: file.clone(),
            orders: new.into_iter().map(row).collect(),
        };
        Ok(Polled::new(cursor).item(file, batch).more(more))
    }
}

/// New orders become CSV files, every ten seconds: a poll in Rust finds them, a shell script makes the file.
fn export(orders: Orders, isolation: Isolation) -> Integration<ExportSettings> {
    let script = Script::inline("sh", include_str!("export.sh")).isolation(isolation);
    Integration::new("csv-export", "1.0.0")
        .title("CSV export")
        .summary("Makes CSV files of new orders")
        .description("Every ten seconds, orders that came since the last export become a new file under Exports.")
        .category("Files")
        .config::<ExportSettings>()
        .poll_script("export", Duration::from_secs(10), NewOrders(orders), script)
}

/// What the report holds
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportSettings {
    /// How many items the report lists
    #[schemars(title = "Items", range(min = 1, max = 100))]
    #[serde(default = "ten")]
    top: u32,
}

fn ten() -> u32 {
    10
}

/// What Ledgerly has booked, added up by item, every thirty seconds.
fn report(python: &str, isolation: Isolation) -> Integration<ReportSettings> {
    let script = Script::inline(python, include_str!("report.py")).isolation(isolation);
    Integration::new("totals-report", "1.0.0")
        .title("Totals report")
        .summary("Adds up what Ledgerly has booked for you")
        .description("Every thirty seconds, a script asks Ledgerly for new bookings and brings the totals of your best-selling items up to date. Your API key stays outside of it.")
        .category("Files")
        .connection("ledger", "ledgerly")
        .config::<ReportSettings>()
        .script("report", Trigger::schedule("*/30 * * * * *"), script)
}
