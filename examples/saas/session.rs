//! The host's own login: a cookie with a random token. Crosspoint learns who is calling through [`Authenticate`].

use async_trait::async_trait;
use crosspoint::prelude::*;
use http::{header::COOKIE, request::Parts};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

/// A user of this SaaS. There are no passwords in a demonstration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub name: &'static str,
    pub customer: &'static str,
    pub company: &'static str,
    pub admin: bool,
}

pub const USERS: &[User] = &[
    User {
        name: "ann",
        customer: "acme",
        company: "Acme Bikes",
        admin: true,
    },
    User {
        name: "ben",
        customer: "acme",
        company: "Acme Bikes",
        admin: false,
    },
    User {
        name: "gus",
        customer: "globex",
        company: "Globex Foods",
        admin: true,
    },
];

const LIFETIME: Duration = Duration::from_secs(8 * 3600);

#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Mutex<HashMap<String, (User, Timestamp)>>>);

impl Sessions {
    /// Signs a user in and answers with the cookie.
    pub fn sign_in(&self, user: User) -> String {
        let token = uuid::Uuid::new_v4().to_string();
        let expires = SystemClock::new().now().plus(LIFETIME);
        self.0.lock().unwrap().insert(token.clone(), (user, expires));
        format!(
            "session={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}",
            LIFETIME.as_secs()
        )
    }

    pub fn sign_out(&self, parts: &Parts) {
        if let Some(token) = token(parts) {
            self.0.lock().unwrap().remove(token);
        }
    }

    /// Who is signed in.
    pub fn user(&self, parts: &Parts) -> Result<User> {
        let token = token(parts).ok_or_else(|| Error::new(Code::SessionMissing, "sign in first"))?;
        let known = self.0.lock().unwrap().get(token).copied();
        let (user, expires) = known.ok_or_else(|| Error::new(Code::SessionExpired, "sign in again"))?;
        if expires <= SystemClock::new().now() {
            return Err(Error::new(Code::SessionExpired, "sign in again"));
        }
        Ok(user)
    }
}

impl User {
    pub fn customer_id(&self) -> CustomerId {
        CustomerId::new(self.customer).expect("the users above have valid ids")
    }
}

fn token(parts: &Parts) -> Option<&str> {
    let cookies = parts.headers.get(COOKIE)?.to_str().ok()?;
    cookies
        .split(';')
        .find_map(|cookie| cookie.trim().strip_prefix("session="))
}

#[async_trait]
impl Authenticate for Sessions {
    async fn authenticate(&self, parts: &Parts) -> Result<Principal> {
        let user = self.user(parts)?;
        let principal = if user.admin {
            Principal::admin(user.customer_id(), user.name)
        } else {
            Principal::viewer(user.customer_id(), user.name)
        };
        Ok(principal.customer_name(user.company))
    }
}
