//! What must hold of a connector's descriptor, and of what a customer's user enters to connect.

use super::per_connection;
use crate::transport::{Base, Credential, HttpClient};
use crosspoint_core::{
    AuthScheme, BaseUrl, Code, ConnectRequest, ConnectorDescriptor, CredentialFields, Error, ExposeSecret, Problem,
    Result,
};
use std::collections::{BTreeMap, BTreeSet};

const LONGEST_SECRET: usize = 16 * 1024;
const LONGEST_VARIABLE: usize = 2048;
const LONGEST_LABEL: usize = 200;

/// Variables of connections.
const BASE_URL: &str = "base_url";
const HEADER: &str = "header";
const PREFIX: &str = "prefix";
const PARAMETER: &str = "parameter";

/// The schemes of a connector; one that names none does not authenticate.
pub(super) fn schemes(descriptor: &ConnectorDescriptor) -> Vec<AuthScheme> {
    match descriptor.auth.as_slice() {
        [] => vec![AuthScheme::None],
        schemes => schemes.to_vec(),
    }
}

/// Checks what a connector says of itself.
pub(super) fn descriptor(descriptor: &ConnectorDescriptor, http: &HttpClient) -> Result<()> {
    let invalid = |what: String| Error::new(Code::SetupInvalid, what).with("connector", &descriptor.id);
    let mut names = BTreeSet::new();
    for scheme in schemes(descriptor) {
        if !names.insert(scheme.name()) {
            return Err(invalid(format!(
                "a connector has one scheme of each kind, not two `{}`",
                scheme.name()
            )));
        }
        let specimen = CredentialFields::from([("api_key", "x"), ("username", "x"), ("password", "x")]);
        Credential::new(&scheme, &specimen).map_err(|e| e.with("connector", &descriptor.id))?;
    }
    if descriptor.probe.as_ref().is_some_and(|probe| !probe.starts_with('/')) {
        return Err(invalid("the path of the connection test begins with `/`".to_owned()));
    }
    if let BaseUrl::Fixed(text) = &descriptor.base_url {
        let base = Base::parse(text).map_err(|why| invalid(format!("the base URL {why}")))?;
        http.check(base.url())
            .map_err(|e| e.with("connector", &descriptor.id))?;
    }
    Ok(())
}

/// The base URL of a connection; the error follows the words "the base URL".
pub(super) fn base_of(
    descriptor: &ConnectorDescriptor,
    variables: &BTreeMap<String, String>,
) -> Result<Base, &'static str> {
    match &descriptor.base_url {
        BaseUrl::Fixed(text) => Base::parse(text),
        BaseUrl::PerConnection => Base::parse(variables.get(BASE_URL).ok_or("is missing")?),
        _ => Err("is of a kind that this release does not know"),
    }
}

/// A scheme with the header or parameter that the connection names itself. Only where the customer chooses the server
/// does the customer choose these.
pub(super) fn adjusted(
    scheme: AuthScheme,
    descriptor: &ConnectorDescriptor,
    variables: &BTreeMap<String, String>,
) -> AuthScheme {
    if !per_connection(descriptor) {
        return scheme;
    }
    let given = |name: &str, or: String| variables.get(name).cloned().unwrap_or(or);
    match scheme {
        AuthScheme::ApiKeyHeader { header, prefix } => AuthScheme::ApiKeyHeader {
            // A header of one's own has no `Bearer ` unless one says so.
            prefix: match (variables.get(PREFIX), variables.contains_key(HEADER)) {
                (Some(prefix), _) => prefix.clone(),
                (None, true) => String::new(),
                (None, false) => prefix,
            },
            header: given(HEADER, header),
        },
        AuthScheme::ApiKeyQuery { parameter } => AuthScheme::ApiKeyQuery {
            parameter: given(PARAMETER, parameter),
        },
        other => other,
    }
}

/// Everything that is wrong with a request to connect. Values are not quoted.
pub(super) fn request(
    descriptor: &ConnectorDescriptor,
    scheme: &AuthScheme,
    request: &ConnectRequest,
    http: &HttpClient,
) -> Vec<Problem> {
    let mut problems = fields(scheme, &request.fields);
    problems.extend(variables(descriptor, scheme, &request.variables, http));
    let label = request.label.as_deref().map_or("x", str::trim);
    if label.is_empty() || label.chars().count() > LONGEST_LABEL {
        problems.push(Problem::new("/label", format!("is 1 to {LONGEST_LABEL} characters")));
    }
    problems
}

fn fields(scheme: &AuthScheme, given: &CredentialFields) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in scheme.fields() {
        let why = match given.get(name).map(ExposeSecret::expose_secret) {
            None => Some("is missing"),
            Some(value) => wrong_secret(name, value),
        };
        problems.extend(why.map(|why| Problem::new(pointer("fields", name), why)));
    }
    for (name, _) in given.iter() {
        if !scheme.fields().contains(&name) {
            problems.push(Problem::new(
                pointer("fields", name),
                "is not a field of this way to authenticate",
            ));
        }
    }
    problems
}

fn wrong_secret(name: &str, value: &str) -> Option<&'static str> {
    if value.trim().is_empty() {
        return Some("is empty");
    }
    if value.len() > LONGEST_SECRET {
        return Some("is longer than 16 KiB");
    }
    if value.chars().any(char::is_control) {
        return Some("contains a line break or another control character");
    }
    if name == "api_key" && value.trim() != value {
        return Some("begins or ends with a space");
    }
    (name == "username" && value.contains(':'))
        .then_some("contains a colon, which HTTP basic authentication cannot carry")
}

fn variables(
    descriptor: &ConnectorDescriptor,
    scheme: &AuthScheme,
    given: &BTreeMap<String, String>,
    http: &HttpClient,
) -> Vec<Problem> {
    let own = per_connection(descriptor);
    let mut problems = Vec::new();
    for (name, value) in given {
        let why = match (name.as_str(), scheme) {
            _ if value.len() > LONGEST_VARIABLE => Some("is longer than 2 KiB"),
            (BASE_URL, _) if own => None,
            (HEADER, AuthScheme::ApiKeyHeader { .. }) if own => wrong_header(value),
            (PREFIX, AuthScheme::ApiKeyHeader { .. }) if own => wrong_text(value),
            (PARAMETER, AuthScheme::ApiKeyQuery { .. }) if own && !value.is_empty() => wrong_text(value),
            _ => Some("is not a variable of this connector"),
        };
        problems.extend(why.map(|why| Problem::new(pointer("variables", name), why)));
    }
    if own {
        let why = match base_of(descriptor, given) {
            Err(why) => Some(why.to_owned()),
            Ok(base) => http.check(base.url()).err().map(|refused| {
                let rule = refused.context().iter().find(|(key, _)| *key == "rule");
                format!(
                    "may not be called ({})",
                    rule.map_or("refused", |(_, rule)| rule.as_str())
                )
            }),
        };
        problems.extend(why.map(|why| Problem::new(pointer("variables", BASE_URL), why)));
    }
    problems
}

fn wrong_header(name: &str) -> Option<&'static str> {
    // What the client sets itself, and what would make the key something else than a key.
    const NOT: [&str; 10] = [
        "host",
        "content-length",
        "content-type",
        "connection",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "keep-alive",
        "accept",
    ];
    let fits = http::HeaderName::try_from(name).is_ok_and(|name| !NOT.contains(&name.as_str()));
    (!fits).then_some("is not the name of a header that can carry a key")
}

fn wrong_text(text: &str) -> Option<&'static str> {
    let fits = text.len() <= 64 && text.bytes().all(|b| (0x20..0x7f).contains(&b));
    (!fits).then_some("is at most 64 printable characters of ASCII")
}

fn pointer(part: &str, name: &str) -> String {
    format!("/{part}/{}", name.replace('~', "~0").replace('/', "~1"))
}
