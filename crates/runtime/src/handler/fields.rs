//! The mode `init`: a script says what the fields of a configuration can be, while somebody fills it in.

use super::{Inner, Redactor};
use crosspoint_core::{
    Choice, Code, ConnectionSlot, CustomerId, CustomerScope, Error, Installation, InvocationId, Result, RunEnd,
    RunHandle, RunMode, RunOutcome, RunSpec, StopReason, TriggerKind, Work,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long a script may take. Somebody is waiting.
const TIME: Duration = Duration::from_secs(20);
/// How long a runner may take over that before it is told to stop.
const MARGIN: Duration = Duration::from_secs(5);
/// How many are asked at once in this process, and how many of them for one customer.
const AT_ONCE: usize = 8;
const OF_ONE: usize = 3;
/// How many choices a list has at most, and how long a value or a label is, in characters.
const MOST: usize = 1000;
const LONGEST: usize = 1000;

/// Who is being asked on whose behalf.
#[derive(Debug, Default)]
pub(super) struct Asking(Mutex<HashMap<CustomerId, usize>>);

/// The right to ask one script; given back when dropped.
#[derive(Debug)]
struct Turn<'a> {
    of: &'a Asking,
    customer: CustomerId,
}

impl Asking {
    fn enter(&self, customer: &CustomerId) -> Result<Turn<'_>> {
        let mut asking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = asking.get(customer).copied().unwrap_or(0);
        if own >= OF_ONE {
            let message = "so many scripts are being asked for this customer already";
            return Err(Error::new(Code::RateLimited, message));
        }
        if asking.values().sum::<usize>() >= AT_ONCE {
            let message = "so many scripts are being asked for choices already";
            return Err(Error::new(Code::TargetSaturated, message));
        }
        asking.insert(customer.clone(), own + 1);
        Ok(Turn {
            of: self,
            customer: customer.clone(),
        })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut asking = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        match asking.get_mut(&self.customer) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                asking.remove(&self.customer);
            }
        }
    }
}

impl Inner {
    /// Asks the script of a flow. Nothing is stored, neither the installation nor what the script says.
    pub(crate) async fn fields(
        &self,
        scope: &CustomerScope,
        installation: &Installation,
        flow: &str,
    ) -> Result<BTreeMap<String, Vec<Choice>>> {
        if installation.customer != *scope.customer() {
            return Err(Error::new(Code::NotFound, "there is no such installation"));
        }
        let integration = self.starter.find(installation).await?;
        let flow = crate::starter::flow_of(&integration, flow)?;
        if !matches!(flow.work, Work::Script(_)) {
            let message = "only a script can be asked for choices";
            return Err(Error::new(Code::Conflict, message).with("flow", &flow.name));
        }
        let turn = self.asking.enter(&installation.customer)?;
        let class = self.trust.class(&integration, &installation.customer, &flow.work);
        let now = self.clock.now();
        let mut spec = RunSpec::new(
            InvocationId::mint(&*self.clock),
            installation.customer.clone(),
            installation.id,
            &flow.name,
            flow.work.clone(),
            now,
        );
        class.hold(&mut spec, flow);
        spec.mode = RunMode::Init;
        spec.stateful = false;
        spec.integration = integration.name.as_str().into();
        spec.trigger = TriggerKind::Call;
        spec.config = installation.config.clone();
        spec.limits.wall_ms = spec.limits.wall_ms.min(super::millis(TIME));
        spec.deadline = now.plus(spec.limits.wall());
        let chosen = |slot: &&ConnectionSlot| installation.connections.contains_key(&slot.name);
        let slots: Vec<&ConnectionSlot> = integration.connections.iter().filter(chosen).collect();
        spec.secrets = Arc::new(self.secrets(scope, installation, &slots, &flow.work).await?);
        self.connect(scope, &mut spec, installation, &slots).await?;
        let redactor = Redactor::new(&spec.secrets);
        let outcome = self.ask(spec).await?;
        drop(turn);
        answer(outcome, &redactor, &flow.name)
    }

    /// Runs it to its end, whatever the runner makes of the deadline. Dropped, the run is killed.
    async fn ask(&self, spec: RunSpec) -> Result<RunOutcome> {
        let most = spec.limits.wall() + MARGIN;
        let mut handle: Box<dyn RunHandle> = self.runners.start(spec).await?;
        if let Ok(outcome) = tokio::time::timeout(most, handle.wait()).await {
            return Ok(outcome);
        }
        handle.cancel(StopReason::Deadline, Duration::ZERO).await;
        Ok(handle.wait().await)
    }
}

fn answer(outcome: RunOutcome, redactor: &Redactor, flow: &str) -> Result<BTreeMap<String, Vec<Choice>>> {
    let error = match outcome.end {
        RunEnd::Succeeded(mut value) => {
            redactor.value(&mut value);
            return read(value);
        }
        RunEnd::Failed(error) => error,
        RunEnd::Stopped(StopReason::Deadline) => Error::new(
            Code::DeadlineExceeded,
            "the script took too long to say what there is to choose from",
        ),
        RunEnd::Stopped(_) => Error::new(Code::ShuttingDown, "the process stops"),
        _ => Error::new(Code::Internal, "the runner ended in a way that is not known here"),
    };
    tracing::warn!(error = redactor.details(&error), flow, "a script offers no choices");
    let failure = redactor.failure(&error);
    Err(Error::new(failure.code, failure.message))
}

fn wrong(what: &str) -> Error {
    Error::new(
        Code::ScriptOutputInvalid,
        format!("the script answered with choices that cannot be used: {what}"),
    )
}

/// From the script's result.
fn read(value: Value) -> Result<BTreeMap<String, Vec<Choice>>> {
    let lists = match value {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(lists) => lists,
        _ => return Err(wrong("the result is not an object")),
    };
    let mut all = BTreeMap::new();
    for (name, list) in lists {
        let Value::Array(list) = list else {
            return Err(wrong("one of the lists is not an array"));
        };
        if list.len() > MOST {
            return Err(wrong("a list has more than 1000 choices"));
        }
        let choices: Result<Vec<Choice>> = list.iter().map(choice).collect();
        all.insert(name, choices?);
    }
    Ok(all)
}

/// A text or a number, or an object with a `value` that is one, and perhaps a `label`.
fn choice(given: &Value) -> Result<Choice> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let value = given.get("value").unwrap_or(given);
    let value = text(value).ok_or_else(|| wrong("a choice has no `value` that is a text or a number"))?;
    let label = given.get("label").and_then(text).unwrap_or_else(|| value.clone());
    if value.chars().count() > LONGEST || label.chars().count() > LONGEST {
        return Err(wrong("a choice is longer than 1000 characters"));
    }
    Ok(Choice::new(value, label))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn choices_are_read_in_every_form() {
        let read = read(json!({
            "list": [{ "value": "l-17", "label": "Customers" }, { "value": 18 }, "x", 3],
            "empty": []
        }))
        .unwrap();
        let list: Vec<_> = read["list"]
            .iter()
            .map(|c| (c.value.as_str(), c.label.as_str()))
            .collect();
        assert_eq!(list, [("l-17", "Customers"), ("18", "18"), ("x", "x"), ("3", "3")]);
        assert!(read["empty"].is_empty());
        assert!(super::read(Value::Null).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_choice_is_refused() {
        let long = "x".repeat(LONGEST + 1);
        let many = vec!["x"; MOST + 1];
        for wrong in [
            json!([]),
            json!({ "list": {} }),
            json!({ "list": [null] }),
            json!({ "list": [{ "label": "x" }] }),
            json!({ "list": [{ "value": {} }] }),
            json!({ "list": [long] }),
            json!({ "list": many }),
        ] {
            assert_eq!(
                read(wrong.clone()).unwrap_err().code(),
                Code::ScriptOutputInvalid,
                "{wrong}"
            );
        }
    }

    #[test]
    fn turns_are_bounded_and_given_back() {
        let (asking, acme) = (Asking::default(), CustomerId::new("acme").unwrap());
        let mut turns: Vec<_> = (0..OF_ONE).map(|_| asking.enter(&acme).unwrap()).collect();
        assert_eq!(asking.enter(&acme).unwrap_err().code(), Code::RateLimited);
        turns.pop();
        turns.push(asking.enter(&acme).unwrap());
        for n in OF_ONE..AT_ONCE {
            turns.push(asking.enter(&CustomerId::new(format!("c{n}")).unwrap()).unwrap());
        }
        let other = CustomerId::new("other").unwrap();
        assert_eq!(asking.enter(&other).unwrap_err().code(), Code::TargetSaturated);
        turns.clear();
        assert!(asking.0.lock().unwrap().is_empty());
        assert!(asking.enter(&other).is_ok());
    }
}
