//! The host's own data: orders, one CSV file for each customer.

use crate::integrations::OrderCreated;
use crosspoint::prelude::*;
use std::{
    io::Write,
    path::PathBuf,
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
    pub fn open(folder: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self(Arc::new(Mutex::new(folder))))
    }

    pub fn list(&self, customer: &CustomerId) -> Vec<Order> {
        let folder = self.0.lock().unwrap();
        read(&folder.join(format!("{customer}.csv")))
    }

    /// Writes the order down, synced, before anybody hears of it.
    pub fn create(&self, customer: &CustomerId, item: &str, cents: u64) -> std::io::Result<Order> {
        let folder = self.0.lock().unwrap();
        let path = folder.join(format!("{customer}.csv"));
        let id = read(&path).len() as u64 + 1;
        let item: String = item
            .chars()
            .filter(|c| !c.is_control() && !",\"".contains(*c))
            .take(60)
            .collect();
        let order = Order {
            id,
            created: SystemClock::new().now().to_string(),
            item,
            cents,
        };
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{},{},{},{}", order.id, order.created, order.item, order.cents)?;
        file.sync_data()?;
        Ok(order)
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

fn read(path: &std::path::Path) -> Vec<Order> {
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
