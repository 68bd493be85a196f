//! Which paths a layer looks after.

use std::sync::Arc;

/// A path as axum writes it: `/v1/scan`, `/v1/orders/{id}`, `/files/{*rest}`.
#[derive(Debug, Clone)]
pub(super) struct PathPattern {
    text: Arc<str>,
    literal: bool,
}

impl PathPattern {
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: text.into(),
            literal: !text.contains('{'),
        }
    }

    pub(super) const fn text(&self) -> &Arc<str> {
        &self.text
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        if self.literal {
            return *self.text == *path;
        }
        let mut actual = path.split('/');
        for wanted in self.text.split('/') {
            if wanted.starts_with("{*") && wanted.ends_with('}') {
                return actual.next().is_some_and(|rest| !rest.is_empty());
            }
            match actual.next() {
                Some(segment) if wanted.starts_with('{') && wanted.ends_with('}') && !segment.is_empty() => {}
                Some(segment) if segment == wanted => {}
                _ => return false,
            }
        }
        actual.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_axum() {
        let cases: [(&str, &[&str], &[&str]); 3] = [
            ("/v1/scan", &["/v1/scan"], &["/v1/scan/", "/v1", "/v1/scan/2"]),
            (
                "/orders/{id}/pay",
                &["/orders/7/pay"],
                &["/orders//pay", "/orders/7", "/orders/7/pay/x"],
            ),
            ("/files/{*rest}", &["/files/a", "/files/a/b"], &["/files", "/files/"]),
        ];
        for (pattern, yes, no) in cases {
            let pattern = PathPattern::new(pattern);
            for path in yes {
                assert!(pattern.matches(path), "{path}");
            }
            for path in no {
                assert!(!pattern.matches(path), "{path}");
            }
        }
    }
}
