//! `CONNECT`: bytes both ways, which nobody looks at.

use super::{
    Shared,
    answer::{self, Content, refused},
    host::Place,
    meter::Line,
};
use crosspoint_core::{Code, Error, Result};
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use std::sync::Mutex;
use tokio::{io::copy_bidirectional, net::TcpStream};

/// A tunnel whose far end is connected; the near end follows when the answer has been written.
#[derive(Debug)]
pub(super) struct Tunnel {
    near: OnUpgrade,
    far: TcpStream,
    place: Place,
}

/// Where a connection keeps the tunnel that it becomes.
pub(super) type Becomes = Mutex<Option<Tunnel>>;

/// Connects the far end.
pub(super) async fn open(shared: &Shared, request: Request<Incoming>) -> Result<(Response<Content>, Tunnel)> {
    let Some(dialer) = &shared.dialer else {
        return Err(refused(
            shared.egress,
            "this script reaches its connections only; other hosts need `Egress::Allow`",
        ));
    };
    let authority = request.uri().authority();
    let authority = authority.ok_or_else(|| Error::new(Code::BodyMalformed, "CONNECT takes `host:port`"))?;
    let place = Place::read(authority, None)?;
    if has_body(request.headers()) {
        return Err(Error::new(Code::BodyMalformed, "CONNECT takes no body"));
    }
    dialer.check(&place)?;
    let far = dialer.connect(&place).await?;
    let near = hyper::upgrade::on(request);
    Ok((answer::empty(StatusCode::OK), Tunnel { near, far, place }))
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

impl Tunnel {
    /// Carries bytes until both sides have ended, one fails, or nothing moves any more.
    pub(super) async fn carry(mut self, shared: &Shared, line: &Line) {
        let Ok(near) = self.near.await else { return };
        let mut near: TokioIo<Upgraded> = TokioIo::new(near);
        tokio::select! {
            done = copy_bidirectional(&mut near, &mut self.far) => {
                if done.is_err() && shared.meter.is_full() {
                    shared.notes.write(super::FULL);
                }
            }
            () = line.idle(shared.limits.idle) => {
                shared.notes.write(&format!("network: a connection to {} was closed: nothing moved on it", self.place));
            }
        }
    }
}
