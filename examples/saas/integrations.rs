//! What happens in this SaaS, and the integration that is compiled into it: orders are booked at Ledgerly.

use async_trait::async_trait;
use crosspoint::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the host emits when an order was created.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct OrderCreated {
    pub id: u64,
    pub item: String,
    pub cents: u64,
}

impl Event for OrderCreated {
    const NAME: &'static str = "order.created";
}

/// How orders are booked
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BookingSettings {
    /// Orders below this amount are not booked
    #[schemars(title = "Smallest amount", range(max = 1_000_000))]
    #[serde(default)]
    minimum: u32,
    /// In which account they are booked
    #[schemars(title = "Account")]
    account: Account,
    /// Put in front of every booking text
    #[schemars(title = "Text", length(max = 40))]
    #[serde(default)]
    text: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Account {
    Revenue,
    Deposits,
}

#[derive(Debug, Serialize, JsonSchema)]
struct NewBooking {
    account: Account,
    text: String,
    cents: u64,
}

/// What Ledgerly answers.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Booking {
    number: String,
}

/// Books an order at Ledgerly: the connector's one action.
#[derive(Debug)]
struct Book;

#[async_trait]
impl Action for Book {
    const NAME: &'static str = "book";
    type Input = serde_json::Value;
    type Output = Booking;

    async fn call(&self, client: &ConnectionClient, input: serde_json::Value) -> Result<Booking> {
        client.json(http::Method::POST, "/v1/bookings", Some(&input)).await
    }
}

struct BookOrder;

#[async_trait]
impl Flow for BookOrder {
    type Config = BookingSettings;
    type Input = OrderCreated;
    type Output = Option<Booking>;

    async fn run(&self, cx: &FlowContext<BookingSettings>, order: OrderCreated) -> Result<Option<Booking>> {
        let settings = cx.config();
        if order.cents < u64::from(settings.minimum) * 100 {
            cx.log(
                Level::Info,
                format!("Order {} is below the smallest amount and was not booked", order.id),
            );
            return Ok(None);
        }
        let text = format!(
            "{} order {}: {}",
            settings.text.as_deref().unwrap_or(""),
            order.id,
            order.item
        );
        let booking = NewBooking {
            account: settings.account,
            text: text.trim().to_owned(),
            cents: order.cents,
        };
        let booked = cx
            .action(Book)
            .on("ledger")
            .call(serde_json::to_value(booking).unwrap_or_default())
            .await?;
        cx.log(
            Level::Info,
            format!(
                "Order {} ({}.{:02}) was booked as {}",
                order.id,
                order.cents / 100,
                order.cents % 100,
                booked.number
            ),
        );
        Ok(Some(booked))
    }
}

/// Orders that are created are booked at Ledgerly.
pub fn booking() -> Integration<BookingSettings> {
    // The provider may be away for long: keep trying for a day, at most 10 seconds apart.
    let retry = RetryPolicy::default()
        .with_max_attempts(10_000)
        .with_initial(std::time::Duration::from_millis(500))
        .with_cap(std::time::Duration::from_secs(10));
    Integration::new("ledgerly-booking", "1.0.0")
        .title("Ledgerly bookkeeping")
        .summary("Books every new order in Ledgerly within seconds")
        .description("Each order that is created is sent to your Ledgerly account. While Ledgerly cannot be reached, orders wait and are booked afterwards, each of them once.")
        .category("Accounting")
        .connection("ledger", "ledgerly")
        .config::<BookingSettings>()
        .flow_with("book", Trigger::event::<OrderCreated>(), BookOrder, FlowOptions::default().retry(retry))
}
