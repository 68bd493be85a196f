//! What a direct call has to know of its request's head, found in one pass: a handful of headers is gone through in less
//! time than it takes to look for each of five names.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

static PREFER: HeaderName = HeaderName::from_static("prefer");

/// A first look at a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Glance {
    /// Whether it says what its client prefers.
    pub(super) prefers: bool,
    /// Whether it is one end of something that goes on, so that a stored reply cannot stand for the other.
    pub(super) streams: bool,
}

impl Glance {
    #[inline]
    pub(super) fn at(method: &Method, headers: &HeaderMap) -> Self {
        let mut glance = Self {
            prefers: false,
            // An answer to these that is not the target's own would mislead: a browser's preflight, a trace, a tunnel.
            streams: matches!(*method, Method::CONNECT | Method::OPTIONS | Method::TRACE),
        };
        if !headers.is_empty() {
            glance.read(headers);
        }
        glance
    }

    fn read(&mut self, headers: &HeaderMap) {
        for (name, value) in headers {
            if *name == header::ACCEPT {
                self.streams |= lists(value, b"text/event-stream");
            } else if *name == header::CONTENT_TYPE {
                self.streams |= value.as_bytes().starts_with(b"application/grpc");
            } else if *name == header::TE {
                self.streams |= lists(value, b"trailers");
            } else if *name == header::UPGRADE {
                // Some clients offer this one with every first request, and it may be ignored.
                self.streams |= !value.as_bytes().eq_ignore_ascii_case(b"h2c");
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

    fn at(method: &Method, headers: &[(&'static str, &'static str)]) -> Glance {
        let headers = headers.iter().map(|(name, value)| {
            let value = HeaderValue::from_static(value);
            (HeaderName::from_static(name), value)
        });
        Glance::at(method, &headers.collect())
    }

    #[test]
    fn what_streams_is_known_by_its_method_or_by_one_of_its_headers() {
        let plain = [
            ("accept", "application/json, */*"),
            ("content-type", "text/plain"),
            ("te", "gzip"),
        ];
        assert_eq!(at(&Method::POST, &plain), Glance::default());
        assert_eq!(at(&Method::POST, &[("upgrade", "H2C")]), Glance::default());
        assert!(at(&Method::OPTIONS, &[]).streams);
        for header in [
            ("accept", "text/event-stream"),
            ("accept", "text/html;q=0.5, text/event-stream;q=1"),
            ("content-type", "application/grpc+proto"),
            ("te", "gzip, trailers"),
            ("upgrade", "websocket"),
        ] {
            assert!(at(&Method::POST, &[plain[0], header]).streams, "{header:?}");
        }
    }

    #[test]
    fn a_preference_is_seen_wherever_it_stands() {
        let headers = [("accept", "*/*"), ("prefer", "wait=3"), ("host", "example.com")];
        assert_eq!(
            at(&Method::GET, &headers),
            Glance {
                prefers: true,
                streams: false
            }
        );
        assert!(!at(&Method::GET, &[("x-prefer", "wait=3")]).prefers);
    }
}
