//! The SaaS's own pages: orders, and the integrations in the same frame.

use crate::{
    exports::Export,
    orders::Order,
    session::{USERS, User},
};
use axum::response::Html;
use serde_json::Value;
use std::fmt::Write;

const STYLE: &str = "
:root { color-scheme: light dark; --brand: #0f766e; --ink: #17211f; --paper: #f6f8f7; --card: #fff; --line: #dde5e2; --dim: #5d6b68 }
@media (prefers-color-scheme: dark) { :root { --brand: #2dd4bf; --ink: #e7efed; --paper: #111817; --card: #18211f; --line: #2a3734; --dim: #93a5a0 } }
* { box-sizing: border-box } body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
header { display: flex; gap: 1.25rem; align-items: center; padding: .8rem 1.5rem; background: var(--card); border-bottom: 1px solid var(--line) }
header b { font-size: 1.05rem } header a { color: var(--dim); text-decoration: none } header a.here { color: var(--ink); font-weight: 600 }
header form { margin-inline-start: auto; color: var(--dim) }
main a { color: var(--brand) } main { max-width: 62rem; margin: 1.5rem auto; padding: 0 1.5rem } h1 { font-size: 1.4rem } 
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.25rem; margin-bottom: 1.25rem }
table { width: 100%; border-collapse: collapse } th, td { text-align: start; padding: .45rem .3rem; border-bottom: 1px solid var(--line) } th { color: var(--dim); font-weight: 500 }
form.row { display: flex; gap: .75rem; flex-wrap: wrap; align-items: end } label { display: grid; gap: .2rem; color: var(--dim) }
input { font: inherit; padding: .4rem .6rem; border: 1px solid var(--line); border-radius: 7px; background: var(--paper); color: var(--ink) }
button { font: inherit; padding: .45rem .9rem; border: 0; border-radius: 7px; background: var(--brand); color: var(--card); cursor: pointer }
button.plain { background: none; color: var(--dim); text-decoration: underline; padding: 0 }
crosspoint-marketplace { --cp-accent: var(--brand); --cp-bg: transparent; --cp-padding: 0 }
";

fn page(title: &str, user: Option<User>, here: &str, body: &str) -> Html<String> {
    let mut head = String::new();
    if let Some(user) = user {
        for (path, name) in [
            ("/", "Orders"),
            ("/exports", "Exports"),
            ("/settings/integrations", "Integrations"),
        ] {
            let class = if path == here { " class=\"here\"" } else { "" };
            let _ = write!(head, "<a href=\"{path}\"{class}>{name}</a>");
        }
        let _ = write!(
            head,
            "<form method=\"post\" action=\"/logout\">{} at {} &nbsp;<button class=\"plain\">Sign out</button></form>",
            user.name, user.company
        );
    }
    Html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><link rel=\"icon\" href=\"data:,\">\
         <title>{title} · Orderly</title><style>{STYLE}</style></head><body><header><b>Orderly</b>{head}</header><main>{body}</main></body></html>"
    ))
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

pub fn login() -> Html<String> {
    let mut body =
        "<h1>Sign in</h1><div class=\"card\"><p>Orderly is a small SaaS for the demonstration. Choose who you are:</p>"
            .to_owned();
    for user in USERS {
        let role = if user.admin { "administrator" } else { "may look" };
        let _ = write!(
            body,
            "<form method=\"post\" action=\"/login\"><p><button name=\"user\" value=\"{0}\">{0}</button> {1}, {role}</p></form>",
            user.name, user.company
        );
    }
    body.push_str("</div>");
    page("Sign in", None, "", &body)
}

pub fn orders(user: User, orders: &[Order], provider_runs: bool, bookings: &[Value]) -> Html<String> {
    let mut rows = String::new();
    for order in orders.iter().rev().take(50) {
        let (id, item, created) = (
            order.id,
            escape(&order.item),
            escape(order.created.get(..19).unwrap_or_default()),
        );
        let _ = write!(
            rows,
            "<tr><td>{id}</td><td>{item}</td><td>{}.{:02}</td><td>{created}</td></tr>",
            order.cents / 100,
            order.cents % 100
        );
    }
    let (state, path, action) = if provider_runs {
        ("is running", "stop", "Stop it")
    } else {
        ("is stopped", "start", "Start it")
    };
    let body = format!(
        "<h1>Orders</h1><div class=\"card\"><form class=\"row\" method=\"post\" action=\"/orders\">\
         <label>Item<input name=\"item\" required maxlength=\"60\" value=\"City bike\"></label>\
         <label>Amount in cents<input name=\"cents\" type=\"number\" min=\"1\" value=\"49900\"></label><button>Create order</button></form></div>\
         <div class=\"card\"><table><thead><tr><th>No.</th><th>Item</th><th>Amount</th><th>Created</th></tr></thead><tbody>{rows}</tbody></table></div>\
         <div class=\"card\"><form class=\"row\" method=\"post\" action=\"/provider/{path}\"><span>Ledgerly, the third party of this demonstration, {state} and has booked \
         {} orders of all customers.</span><button>{action}</button></form></div>",
        bookings.len()
    );
    page("Orders", Some(user), "/", &body)
}

pub fn exports(user: User, exports: &[Export]) -> Html<String> {
    let mut rows = String::new();
    for Export { execution, made } in exports {
        let _ = write!(
            rows,
            "<tr><td><a href=\"/exports/{}\">{}</a></td><td>{}</td><td>{}</td><td>{}</td></tr>",
            execution.id,
            escape(&made.file),
            escape(&made.summary),
            execution.isolation.map_or_else(String::new, |level| level.to_string()),
            execution
                .finished
                .map_or_else(String::new, |at| escape(at.to_string().get(..19).unwrap_or_default())),
        );
    }
    let body = format!(
        "<h1>Exports</h1><div class=\"card\"><p>Files that the scripts of your integrations have made. They can be fetched for thirty days.</p>\
         <table><thead><tr><th>File</th><th>What is in it</th><th>Isolation</th><th>Made</th></tr></thead><tbody>{rows}</tbody></table></div>"
    );
    page("Exports", Some(user), "/exports", &body)
}

pub fn integrations(user: User) -> Html<String> {
    page(
        "Integrations",
        Some(user),
        "/settings/integrations",
        "<script type=\"module\" src=\"/integrations/element.js\"></script><crosspoint-marketplace api=\"/integrations/v1/\"></crosspoint-marketplace>",
    )
}
