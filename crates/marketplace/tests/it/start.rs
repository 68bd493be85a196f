//! What cannot be offered is refused before anything is served.

use crate::world::connector;
use async_trait::async_trait;
use crosspoint_core::{BaseUrl, Code, Config, Flow, FlowContext, Integration, Registry, Result, Trigger};
use crosspoint_marketplace::check;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

struct Nothing<C>(PhantomData<fn() -> C>);

#[async_trait]
impl<C: Config> Flow for Nothing<C> {
    type Config = C;
    type Input = ();
    type Output = ();
    async fn run(&self, _: &FlowContext<C>, (): ()) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Odd {
    pair: (u8, u8),
    any: serde_json::Value,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Asking {
    #[schemars(extend("x-crosspoint" = { "widget": "dynamic-select", "source": "shop.channels" }))]
    known: String,
    #[schemars(extend("x-crosspoint" = { "widget": "dynamic-select", "source": "shop.nothing" }))]
    unknown: String,
    #[schemars(extend("x-crosspoint" = { "widget": "dynamic-select", "source": "own.channels" }))]
    not_connected: String,
}

fn registry<C: Config>() -> Registry {
    let mut registry = Registry::new();
    for id in ["shop", "own"] {
        let base_url = BaseUrl::Fixed("https://shop.example".into());
        registry.add_connector(connector(id, base_url)).unwrap();
    }
    let integration = Integration::new("strange", "1.0.0")
        .connection("shop", "shop")
        .config::<C>()
        .flow("go", Trigger::call::<()>(), Nothing(PhantomData));
    registry.add_integration(integration).unwrap();
    registry
}

fn places<C: Config>() -> Vec<String> {
    let error = check(&registry::<C>()).unwrap_err();
    assert_eq!(error.code(), Code::SetupInvalid);
    let mut places: Vec<String> = error.problems().iter().map(|p| p.pointer.clone()).collect();
    places.sort();
    places
}

#[test]
fn every_field_that_the_form_does_not_show_is_named() {
    assert_eq!(places::<Odd>(), ["/strange/1.0.0/any", "/strange/1.0.0/pair"]);
}

#[test]
fn dynamic_choices_need_somebody_who_offers_them() {
    let at = "/strange/1.0.0/properties";
    assert_eq!(
        places::<Asking>(),
        [format!("{at}/not_connected"), format!("{at}/unknown")]
    );
}

#[test]
fn what_can_be_offered_passes() {
    check(&crate::world::registry("1.0.0")).unwrap();
}
