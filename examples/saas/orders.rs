//! The host's own data: orders, one CSV file for each customer, and which of them were announced.

use crate::integrations::OrderCreated;
use crosspoint::prelude::*;
use std::{
    collections::BTreeSet,
    io::{Result, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    pub id: u64,
    pub created: String,
    pub item: String,
    pub cents: u64,
}

#[derive(Debug, Clone)]
pub struct Orders(Arc<Mutex<PathBuf>>);

impl Orders {
    pub fn open(folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        for file in std::fs::read_dir(&folder)? {
            // A crash may have cut the last line off; nobody was told of that order.
            let path = file?.path();
            let bytes = std::fs::read(&path)?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            if whole < bytes.len() {
                std::fs::write(&path, &bytes[..whole])?;
            }
        }
        Ok(Self(Arc::new(Mutex::new(folder))))
    }

    pub fn list(&self, customer: &CustomerId) -> Vec<Order> {
        let folder = self.0.lock().unwrap();
        read(&folder.join(format!("{customer}.csv")))
    }

    /// Writes the order down, synced, before anybody hears of it.
    pub fn create(&self, customer: &CustomerId, item: &str, cents: u64) -> Result<Order> {
        let folder = self.0.lock().unwrap();
        let path = folder.join(format!("{customer}.csv"));
        let id = read(&path).len() as u64 + 1;
        let plain = |c: &char| !c.is_control() && !",\"\\".contains(*c);
        let item: String = item.chars().filter(plain).take(60).collect();
        let order = Order {
            id,
            created: SystemClock::new().now().to_string(),
            item,
            cents,
        };
        append(
            &path,
            &format!("{},{},{},{}\n", order.id, order.created, order.item, order.cents),
        )?;
        Ok(order)
    }

    /// Notes that the integrations have heard of an order.
    pub fn announced(&self, customer: &CustomerId, id: u64) -> Result<()> {
        let folder = self.0.lock().unwrap();
        append(&folder.join(format!("{customer}.announced")), &format!("{id}\n"))
    }

    /// Orders that were written down just before a crash, and that nobody has heard of.
    pub fn unannounced(&self, customer: &CustomerId) -> Vec<Order> {
        let known = {
            let folder = self.0.lock().unwrap();
            std::fs::read_to_string(folder.join(format!("{customer}.announced"))).unwrap_or_default()
        };
        let known: BTreeSet<u64> = known.lines().filter_map(|line| line.parse().ok()).collect();
        self.list(customer)
            .into_iter()
            .filter(|order| !known.contains(&order.id))
            .collect()
    }
}

impl Order {
    pub fn event(&self) -> OrderCreated {
        OrderCreated {
            id: self.id,
            item: self.item.clone(),
            cents: self.cents,
        }
    }
}

fn append(path: &Path, line: &str) -> Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

fn read(path: &Path) -> Vec<Order> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let order = |line: &str| {
        let mut fields = line.split(',');
        Some(Order {
            id: fields.next()?.parse().ok()?,
            created: fields.next()?.to_owned(),
            item: fields.next()?.to_owned(),
            cents: fields.next()?.parse().ok()?,
        })
    };
    text.lines().filter_map(order).collect()
}
