//! What a direct call has to know of its request's head, found in one pass: a handful of headers is gone through in less
//! time than it takes to look for each of five names.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

static PREFER: HeaderName = HeaderName::from_static("prefer");

/// A first look at a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Glance {
    /// Whether it says what its client prefers.
    pub(super) prefers: bool,
    ongoing: bool,
}

impl Glance {
    #[inline]
    pub(super) fn at(headers: &HeaderMap) -> Self {
        let mut glance = Self::default();
        if !headers.is_empty() {
            glance.read(headers);
        }
        glance
    }

    /// Whether the request is one end of something that goes on, so that a stored reply cannot stand for the other.
    #[inline]
    pub(super) fn streams(self, method: &Method) -> bool {
        // An answer to these that is not the target's own would mislead: a browser's preflight, a trace, a tunnel.
        self.ongoing || matches!(*method, Method::CONNECT | Method::OPTIONS | Method::TRACE)
    }

    fn read(&mut self, headers: &HeaderMap) {
        for (name, value) in headers {
            if *name == header::ACCEPT {
                self.ongoing |= lists(value, b"text/event-stream");
            } else if *name == header::CONTENT_TYPE {
                self.ongoing |= value.as_bytes().starts_with(b"application/grpc");
            } else if *name == header::TE {
                self.ongoing |= lists(value, b"trailers");
            } else if *name == header::UPGRADE {
                // Some clients offer this one with every first request, and it may be ignored.
                self.ongoing |= !value.as_bytes().eq_ignore_ascii_case(b"h2c");
            } else if *name == PREFER {
                self.prefers = true;
            }
        }
    }
}

/// Whether one of the elements of a list begins like this.
fn lists(value: &HeaderValue, wanted: &[u8]) -> bool {
    let mut elements = value.as_bytes().split(|byte| *byte == b',');
    elements.any(|element| element.trim_ascii_start().starts_with(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(headers: &[(&'static str, &'static str)]) -> Glance {
        let headers = headers.iter().map(|(name, value)| {
            let value = HeaderValue::from_static(value);
            (HeaderName::from_static(name), value)
        });
        Glance::at(&headers.collect())
    }

    #[test]
    fn what_streams_is_known_by_its_method_or_by_one_of_its_headers() {
        let plain = [
            ("accept", "application/json, */*"),
            ("content-type", "text/plain"),
            ("te", "gzip"),
        ];
        assert!(!at(&plain).streams(&Method::POST));
        assert!(!at(&[("upgrade", "H2C")]).streams(&Method::GET));
        assert!(at(&plain).streams(&Method::OPTIONS));
        for header in [
            ("accept", "text/event-stream"),
            ("accept", "text/html;q=0.5, text/event-stream;q=1"),
            ("content-type", "application/grpc+proto"),
            ("te", "gzip, trailers"),
            ("upgrade", "websocket"),
        ] {
            assert!(
                at(&[("host", "example.com"), header]).streams(&Method::POST),
                "{header:?}"
            );
        }
    }

    #[test]
    fn a_preference_is_seen_wherever_it_stands() {
        assert!(at(&[("accept", "*/*"), ("prefer", "wait=3"), ("host", "example.com")]).prefers);
        assert!(!at(&[("accept", "*/*"), ("x-prefer", "wait=3")]).prefers);
        assert_eq!(at(&[]), Glance::default());
    }
}
