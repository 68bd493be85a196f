//! Flows whose trigger has to be asked for: a provider that sends no events is polled.

use super::{
    Config, DynFlow, FlowContext, FlowDefinition, FlowOptions, Integration, ScheduleSpec, Script, Source, Tick, Trigger,
};
use crate::{Data, Result, Work};
use async_trait::async_trait;
use schemars::schema_for;
use serde_json::Value;
use std::sync::Arc;

/// Pages that one poll reads at most; the next poll follows at once if there are more.
const PAGES: usize = 100;

/// Asks a provider for what is new since the last time.
///
/// The cursor and the executions that the items start are committed together: no item is skipped and none is started
/// twice, also when the process dies at any moment. Two polls of one installation never run at the same time. The cursor
/// belongs to the installation and the flow's name; it survives new versions of the integration.
///
/// ```
/// use crosspoint_core::{Flow, FlowContext, Integration, NoConfig, Poll, Polled, Result};
/// use std::time::Duration;
/// # use serde::{Serialize, Deserialize}; use schemars::JsonSchema;
/// #[derive(Debug, Serialize, Deserialize, JsonSchema)]
/// struct Order { number: u64 }
///
/// struct NewOrders;
///
/// #[async_trait::async_trait]
/// impl Poll for NewOrders {
///     type Config = NoConfig;
///     type Cursor = u64;
///     type Item = Order;
///     async fn poll(&self, cx: &FlowContext<NoConfig>, after: Option<u64>) -> Result<Polled<Order, u64>> {
///         let after = after.unwrap_or(0);
///         // let orders = cx.action(ListOrders { after }) ...
///         let orders = vec![Order { number: after + 1 }];
///         let cursor = orders.iter().map(|order| order.number).max().unwrap_or(after);
///         Ok(Polled::new(cursor).items(orders, |order| order.number.to_string()))
///     }
/// }
///
/// struct Book;
///
/// #[async_trait::async_trait]
/// impl Flow for Book {
///     type Config = NoConfig;
///     type Input = Order;
///     type Output = ();
///     async fn run(&self, _: &FlowContext<NoConfig>, order: Order) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// let integration = Integration::new("orders", "1.0.0").poll("book", Duration::from_secs(60), NewOrders, Book);
/// ```
#[async_trait]
pub trait Poll: Send + Sync + 'static {
    /// The integration's configuration.
    type Config: Config;
    /// Where the last poll ended.
    type Cursor: Data;
    /// What is found; the input of the flow that handles it.
    type Item: Data;

    /// What is new after the cursor; `None` at the first poll, when the author decides where to begin.
    async fn poll(
        &self,
        cx: &FlowContext<Self::Config>,
        cursor: Option<Self::Cursor>,
    ) -> Result<Polled<Self::Item, Self::Cursor>>;
}

/// What a poll found.
#[derive(Debug)]
#[must_use]
pub struct Polled<I, C> {
    items: Vec<(String, I)>,
    cursor: C,
    more: bool,
}

impl<I, C> Polled<I, C> {
    /// Nothing yet; the next poll begins at this cursor.
    pub const fn new(cursor: C) -> Self {
        Self {
            items: Vec::new(),
            cursor,
            more: false,
        }
    }

    /// Adds one item. Its key tells it from all others of this flow, for instance the provider's id, with a version if a
    /// changed item is to be handled again. An item whose key was started before is not started again for as long as its
    /// execution is kept.
    pub fn item(mut self, key: impl Into<String>, item: I) -> Self {
        self.items.push((key.into(), item));
        self
    }

    /// Adds items, keyed by `key`.
    pub fn items(mut self, items: impl IntoIterator<Item = I>, key: impl Fn(&I) -> String) -> Self {
        self.items.extend(items.into_iter().map(|item| (key(&item), item)));
        self
    }

    /// Says whether there is more to be read at the cursor right now: then it is polled again before the poll ends.
    pub const fn more(mut self, more: bool) -> Self {
        self.more = more;
        self
    }
}

impl<C: Config> Integration<C> {
    /// As [`Integration::poll`], with a program in any language that handles what is found: the item is its input. The poll
    /// is the host's own code and reads whatever it likes; the script sees one item at a time, and needs neither network
    /// nor files of the host for it.
    ///
    /// ```
    /// # use crosspoint_core::{FlowContext, NoConfig, Poll, Polled, Result};
    /// use crosspoint_core::{Integration, Script};
    /// use std::time::Duration;
    /// # struct NewOrders;
    /// # #[async_trait::async_trait]
    /// # impl Poll for NewOrders {
    /// #     type Config = NoConfig;
    /// #     type Cursor = u64;
    /// #     type Item = u64;
    /// #     async fn poll(&self, _: &FlowContext<NoConfig>, _: Option<u64>) -> Result<Polled<u64, u64>> {
    /// #         Ok(Polled::new(0))
    /// #     }
    /// # }
    /// let script = Script::inline("sh", "cp \"$XP_INPUT_FILE\" \"$XP_RESULT_FILE\"");
    /// let integration = Integration::new("orders", "1.0.0").poll_script("copy", Duration::from_secs(60), NewOrders, script);
    /// ```
    pub fn poll_script<P>(
        self,
        name: impl Into<String>,
        schedule: impl Into<ScheduleSpec>,
        poll: P,
        script: Script,
    ) -> Self
    where
        P: Poll<Config = C>,
    {
        let name = name.into();
        self.script(name.clone(), Trigger::call::<P::Item>(), script)
            .polled(name, schedule.into(), poll)
    }

    /// Adds the flow that polls for the flow `then`, which was added last.
    pub(super) fn polled<P: Poll<Config = C>>(mut self, then: String, schedule: ScheduleSpec, poll: P) -> Self {
        // The flow that was added just now.
        if let Some(flow) = self.inner.flows.last_mut() {
            flow.source = Source::Poll;
        }
        let name = format!("{then}-poll");
        self.inner.flows.push(FlowDefinition {
            name: name.clone(),
            source: Source::Schedule(schedule),
            work: Work::Flow(Arc::new(Polling { poll, name, then })),
            stateful: true,
            input_schema: schema_for!(Tick),
            options: FlowOptions::default(),
        });
        self
    }
}

/// The flow that polls.
struct Polling<P> {
    poll: P,
    /// Its own name, and that of the flow that handles items.
    name: String,
    then: String,
}

#[async_trait]
impl<P: Poll> DynFlow for Polling<P> {
    async fn run_value(&self, cx: FlowContext<Value>, input: Value) -> Result<Value> {
        let cx = cx.typed::<P::Config>()?;
        let mut cursor: Option<P::Cursor> = cx.state()?;
        let mut found = 0_u64;
        let mut more = true;
        for _ in 0..PAGES {
            let polled = self.poll.poll(&cx, cursor.take()).await?;
            for (key, item) in polled.items {
                cx.start_once(&self.then, key, &item)?;
                found += 1;
            }
            cursor = Some(polled.cursor);
            more = polled.more;
            if !more {
                break;
            }
        }
        if let Some(cursor) = &cursor {
            cx.set_state(cursor)?;
        }
        if more {
            let tick: Tick = crate::connector::from_value(input, "the tick")?;
            cx.start(&self.name, &tick)?;
        }
        Ok(serde_json::json!({ "found": found }))
    }
}
