//! How stores and relays write calls as bytes: compact, versioned, and refused rather than guessed at when damaged.
//!
//! Every value starts with two bytes, its kind and the version of the layout; a value of an unknown kind or version is
//! [`Code::StoreCorrupt`], and so is one that is cut short, goes on behind its end or holds
//! something that its type does not allow. Nothing is reserved on the word of a length that was read.
//!
//! HTTP version and extensions are not written: a call is replayed in whatever version its new connection speaks.
//!
//! ```
//! use bytes::Bytes;
//! use crosspoint_core::wire;
//!
//! let request = http::Request::post("/v1/scan?deep=1").header("x-tag", "a").body(Bytes::from_static(b"{}")).unwrap();
//! let stored = wire::encode_request(&request);
//! let back = wire::decode_request(stored.into())?;
//! assert_eq!((back.method(), back.uri(), back.body()), (request.method(), request.uri(), request.body()));
//! # Ok::<(), crosspoint_core::Error>(())
//! ```

mod envelope;
#[cfg(test)]
mod tests;

pub use envelope::{decode_envelope, encode_envelope};

use crate::{Code, Error, Reply, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};

/// The layout that this release writes.
const VERSION: u8 = 1;
const REQUEST: u8 = b'Q';
const REPLY: u8 = b'R';
const ENVELOPE: u8 = b'E';

/// Writes method, URI, headers and body.
#[must_use]
pub fn encode_request(request: &Request<Bytes>) -> Vec<u8> {
    let mut out = Writer::new(REQUEST, 128 + request.body().len());
    out.bytes(request.method().as_str().as_bytes());
    out.bytes(request.uri().to_string().as_bytes());
    out.headers(request.headers());
    out.bytes(request.body());
    out.0
}

/// Reads what [`encode_request`] wrote; the body is a slice of `stored`, not a copy.
///
/// # Errors
/// [`Code::StoreCorrupt`] if it is something else.
pub fn decode_request(stored: Bytes) -> Result<Request<Bytes>> {
    let mut from = Reader::new(stored, REQUEST)?;
    let method = Method::from_bytes(&from.bytes()?).map_err(|e| damaged("a method").caused_by(e))?;
    let uri = Uri::from_maybe_shared(from.bytes()?).map_err(|e| damaged("a URI").caused_by(e))?;
    let headers = from.headers()?;
    let mut request = Request::new(from.bytes()?);
    from.end()?;
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Writes status, headers and body.
#[must_use]
pub fn encode_reply(reply: &Reply) -> Vec<u8> {
    let mut out = Writer::new(REPLY, 64 + reply.body().len());
    out.number(u64::from(reply.status().as_u16()));
    out.headers(reply.headers());
    out.bytes(reply.body());
    out.0
}

/// Reads what [`encode_reply`] wrote; the body is a slice of `stored`, not a copy.
///
/// # Errors
/// [`Code::StoreCorrupt`] if it is something else.
pub fn decode_reply(stored: Bytes) -> Result<Reply> {
    let mut from = Reader::new(stored, REPLY)?;
    let status = u16::try_from(from.number()?)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| damaged("a status"))?;
    let headers = from.headers()?;
    let mut reply = Reply::new(from.bytes()?);
    from.end()?;
    *reply.status_mut() = status;
    *reply.headers_mut() = headers;
    Ok(reply)
}

fn damaged(what: &str) -> Error {
    Error::new(Code::StoreCorrupt, format!("a stored call is damaged: {what}"))
}

/// Appends values to a buffer.
struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u8, capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity);
        out.extend_from_slice(&[kind, VERSION]);
        Self(out)
    }

    /// Seven bits a byte, low ones first (LEB128).
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push((value & 0x7f) as u8);
    }

    /// With the sign in the lowest bit.
    fn signed(&mut self, value: i64) {
        self.number((value << 1).cast_unsigned() ^ (value >> 63).cast_unsigned());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn headers(&mut self, headers: &HeaderMap) {
        self.number(headers.len() as u64);
        for (name, value) in headers {
            self.text(name.as_str());
            self.0.push(u8::from(value.is_sensitive()));
            self.bytes(value.as_bytes());
        }
    }
}

/// Takes values off the front of a buffer.
struct Reader(Bytes);

impl Reader {
    fn new(stored: Bytes, kind: u8) -> Result<Self> {
        let mut reader = Self(stored);
        match (reader.byte()?, reader.byte()?) {
            (found, VERSION) if found == kind => Ok(reader),
            (found, version) if found == kind => {
                Err(damaged("its layout is of another release").with("version", version))
            }
            _ => Err(damaged("it is of another kind")),
        }
    }

    fn take(&mut self, length: usize) -> Result<Bytes> {
        if length > self.0.len() {
            return Err(damaged("it is cut short"));
        }
        Ok(self.0.split_to(length))
    }

    fn byte(&mut self) -> Result<u8> {
        self.take(1)?.first().copied().ok_or_else(|| damaged("it is cut short"))
    }

    fn number(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(damaged("a number is too large"))
    }

    fn signed(&mut self) -> Result<i64> {
        let coded = self.number()?;
        Ok((coded >> 1).cast_signed() ^ -(coded & 1).cast_signed())
    }

    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.number()?).map_err(|_| damaged("a length is too large"))
    }

    fn bytes(&mut self) -> Result<Bytes> {
        let length = self.length()?;
        self.take(length)
    }

    fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?.into()).map_err(|e| damaged("a text").caused_by(e))
    }

    fn array(&mut self) -> Result<[u8; 16]> {
        <[u8; 16]>::try_from(self.take(16)?.as_ref()).map_err(|_| damaged("it is cut short"))
    }

    fn headers(&mut self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for _ in 0..self.length()? {
            let name = HeaderName::from_bytes(&self.bytes()?).map_err(|e| damaged("a header").caused_by(e))?;
            let sensitive = self.byte()? != 0;
            let mut value =
                HeaderValue::from_maybe_shared(self.bytes()?).map_err(|e| damaged("a header").caused_by(e))?;
            value.set_sensitive(sensitive);
            headers
                .try_append(name, value)
                .map_err(|e| damaged("it has too many headers").caused_by(e))?;
        }
        Ok(headers)
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(damaged("something stands behind its end"))
        }
    }
}
