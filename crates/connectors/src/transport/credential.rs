//! How a credential goes into a request.

use super::hidden::Hidden;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use crosspoint_core::{AuthScheme, Code, CredentialFields, Error, ExposeSecret, Result, SecretString};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use secrecy::zeroize::Zeroizing;
use std::fmt;
use url::{Url, form_urlencoded};

/// A credential in the form in which it is sent.
#[derive(Clone)]
pub(crate) struct Credential {
    place: Place,
    /// Whatever in it must not be seen.
    hidden: Hidden,
}

#[derive(Clone)]
enum Place {
    None,
    Header(HeaderName, HeaderValue),
    Query(String, SecretString),
}

impl Credential {
    /// Prepares the fields of a scheme.
    pub(crate) fn new(scheme: &AuthScheme, fields: &CredentialFields) -> Result<Self> {
        let mut hidden = Hidden::default();
        let place = match scheme {
            AuthScheme::None => Place::None,
            AuthScheme::ApiKeyHeader { header, prefix } => {
                let name = HeaderName::try_from(header.as_str()).map_err(|_| {
                    Error::new(Code::SetupInvalid, "the scheme's header has no valid name").with("header", header)
                })?;
                let key = field(fields, "api_key")?;
                hidden.add(key);
                let value = Zeroizing::new(format!("{prefix}{key}"));
                Place::Header(name, sensitive(&value)?)
            }
            AuthScheme::ApiKeyQuery { parameter } => {
                let key = field(fields, "api_key")?;
                hidden.add(key);
                hidden.add(&Zeroizing::new(
                    form_urlencoded::byte_serialize(key.as_bytes()).collect::<String>(),
                ));
                Place::Query(parameter.clone(), SecretString::from(key))
            }
            AuthScheme::Basic => {
                let password = field(fields, "password")?;
                let pair = Zeroizing::new(format!("{}:{password}", field(fields, "username")?));
                let pair = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
                hidden.add(password);
                hidden.add(&pair);
                let value = Zeroizing::new(format!("Basic {}", *pair));
                Place::Header(header::AUTHORIZATION, sensitive(&value)?)
            }
            _ => {
                return Err(
                    Error::new(Code::SetupInvalid, "this release cannot authenticate in this way")
                        .with("scheme", scheme.name()),
                );
            }
        };
        Ok(Self { place, hidden })
    }

    /// Puts it into a request to the provider.
    pub(super) fn apply(&self, url: &mut Url, headers: &mut HeaderMap) {
        match &self.place {
            Place::None => {}
            Place::Header(name, value) => {
                headers.insert(name.clone(), value.clone());
            }
            Place::Query(name, value) => {
                retain_pairs(url, |key, _| key != name);
                url.query_pairs_mut().append_pair(name, value.expose_secret());
            }
        }
    }

    /// Takes it out of a URL of somebody else to which the provider has copied it.
    pub(super) fn remove_from(&self, url: &mut Url) {
        if let Place::Query(_, secret) = &self.place {
            retain_pairs(url, |_, value| value != secret.expose_secret());
        }
    }

    /// Masks it in an answer into which the provider has copied it.
    pub(super) fn conceal(&self, answer: &mut http::Response<Bytes>) {
        self.hidden.mask(answer);
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.place {
            Place::None => "Credential(none)",
            Place::Header(..) => "Credential(in a header)",
            Place::Query(..) => "Credential(in the query)",
        })
    }
}

/// Leaves the query alone, byte for byte, if everything in it stays.
fn retain_pairs(url: &mut Url, mut keep: impl FnMut(&str, &str) -> bool) {
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if pairs.iter().all(|(key, value)| keep(key, value)) {
        return;
    }
    url.set_query(None);
    let kept: Vec<_> = pairs.iter().filter(|(key, value)| keep(key, value)).collect();
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
}

fn field<'a>(fields: &'a CredentialFields, name: &'static str) -> Result<&'a str> {
    fields.get(name).map(ExposeSecret::expose_secret).ok_or_else(|| {
        Error::new(
            Code::SecretUnreadable,
            "the stored credential lacks a field of its scheme",
        )
        .with("field", name)
    })
}

fn sensitive(value: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(value).map_err(|_| {
        Error::new(
            Code::InputInvalid,
            "the credential has characters that no header can carry",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(scheme: &AuthScheme, url: &str) -> (String, HeaderMap) {
        let fields = CredentialFields::from([("api_key", "k &1"), ("username", "ann"), ("password", "p:w")]);
        let mut url = Url::parse(url).unwrap();
        let mut headers = HeaderMap::new();
        Credential::new(scheme, &fields).unwrap().apply(&mut url, &mut headers);
        (url.to_string(), headers)
    }

    #[test]
    fn each_scheme_has_its_place() {
        let (_, headers) = applied(&AuthScheme::bearer(), "https://a.example/");
        assert_eq!(headers["authorization"], "Bearer k &1");
        assert!(headers["authorization"].is_sensitive());

        let (_, headers) = applied(&AuthScheme::Basic, "https://a.example/");
        assert_eq!(headers["authorization"], "Basic YW5uOnA6dw==");
        assert!(headers["authorization"].is_sensitive());

        let query = AuthScheme::ApiKeyQuery {
            parameter: "key".to_owned(),
        };
        let (url, _) = applied(&query, "https://a.example/x?b=1%20&key=theirs");
        assert_eq!(url, "https://a.example/x?b=1+&key=k+%261");
        let (url, _) = applied(&query, "https://a.example/x?b=1%20");
        assert_eq!(url, "https://a.example/x?b=1%20&key=k+%261");
    }

    #[test]
    fn a_key_that_came_back_in_a_redirect_is_taken_out() {
        let query = AuthScheme::ApiKeyQuery {
            parameter: "key".to_owned(),
        };
        let credential = Credential::new(&query, &CredentialFields::from([("api_key", "canary")])).unwrap();
        let mut url = Url::parse("https://b.example/?token=canary&x=1").unwrap();
        credential.remove_from(&mut url);
        assert_eq!(url.as_str(), "https://b.example/?x=1");
        assert!(!format!("{credential:?}").contains("canary"));
    }
}
