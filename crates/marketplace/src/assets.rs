//! The user interface: plain files, part of the binary, under an address that changes with their content.

use axum::{body::Body, response::Response};
use http::{HeaderValue, header};
use uuid::Uuid;

/// A file: its name below `ui/`, its media type, its text.
type Asset = (&'static str, &'static str, &'static str);

macro_rules! assets {
    ($($name:literal: $media:expr;)+) => {
        &[$(($name, $media, include_str!(concat!("../ui/", $name)))),+]
    };
}

const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// Every file below `ui/` but the page; a test compares it with the folder.
const ASSETS: &[Asset] = assets! {
    "api.js": JS;
    "catalogue.js": JS;
    "choices.js": JS;
    "connections.js": JS;
    "de.js": JS;
    "dom.js": JS;
    "element.js": JS;
    "en.js": JS;
    "executions.js": JS;
    "fields.js": JS;
    "form.js": JS;
    "i18n.js": JS;
    "install.js": JS;
    "installation.js": JS;
    "page.css": CSS;
    "parts.js": JS;
    "styles.js": JS;
};

/// The page that holds the element.
const PAGE: &str = include_str!("../ui/index.html");

/// The files, and the hash over all of them.
#[derive(Debug)]
pub(crate) struct Assets {
    hash: String,
}

impl Assets {
    pub(crate) fn embedded() -> Self {
        let mut all = String::new();
        for (name, _, text) in ASSETS.iter().chain(&[("index.html", "", PAGE)]) {
            all.push_str(name);
            all.push('\0');
            all.push_str(text);
            all.push('\0');
        }
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, all.as_bytes());
        Self {
            hash: id.simple().to_string(),
        }
    }

    /// The page, for an address with or without a slash at its end: without one, a browser resolves links from the
    /// folder above, so they name the last part of the address as well.
    pub(crate) fn page(&self, address: &str) -> Response {
        let last = address.rsplit('/').next().unwrap_or("");
        // The address is the browser's, so anything that could end an attribute stays out of the page.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
        let last = if last.bytes().all(plain) { last } else { "" };
        let base = if last.is_empty() {
            String::new()
        } else {
            format!("{last}/")
        };
        let page = PAGE
            .replace("\"ui/{{hash}}/", &format!("\"{base}ui/{}/", self.hash))
            .replace("api=\"v1/\"", &format!("api=\"{base}v1/\""));
        let mut response = text(page.into(), "text/html; charset=utf-8");
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }

    /// The module that loads the element, for the host's own pages: the one address that does not change.
    pub(crate) fn loader(&self) -> Response {
        let mut response = text(format!("import \"./ui/{}/element.js\";\n", self.hash).into(), JS);
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }

    /// A file under the hash that the page names; `None` under any other.
    pub(crate) fn file(&self, hash: &str, name: &str) -> Option<Response> {
        if hash != self.hash {
            return None;
        }
        let (_, media, content) = ASSETS.iter().find(|asset| asset.0 == name)?;
        let mut response = text(Body::from(*content), media);
        response.headers_mut().insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=31536000, immutable"),
        );
        Some(response)
    }
}

fn text(body: Body, media: &'static str) -> Response {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::collections::BTreeSet;

    async fn body(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn every_file_of_the_folder_is_served_and_no_other() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ui");
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            found.insert(entry.unwrap().file_name().into_string().unwrap());
        }
        assert!(found.remove("index.html"));
        let listed: BTreeSet<String> = ASSETS.iter().map(|asset| asset.0.to_owned()).collect();
        assert_eq!(found, listed);
    }

    #[tokio::test]
    async fn links_of_the_page_work_with_and_without_a_slash_at_the_end() {
        let assets = Assets::embedded();
        let hash = &assets.hash;
        for (address, base) in [
            ("/x/integrations/", ""),
            ("/x/integrations", "integrations/"),
            ("/", ""),
        ] {
            let page = body(assets.page(address)).await;
            assert!(page.contains(&format!("src=\"{base}ui/{hash}/element.js\"")), "{page}");
            assert!(page.contains(&format!("href=\"{base}ui/{hash}/page.css\"")), "{page}");
            assert!(page.contains(&format!("api=\"{base}v1/\"")), "{page}");
            assert!(!page.contains("{{"), "{page}");
        }
        let page = body(assets.page("/x/\"><script>")).await;
        assert!(!page.contains("<script>"), "{page}");
    }

    #[tokio::test]
    async fn a_file_answers_under_its_hash_alone() {
        let assets = Assets::embedded();
        assert!(assets.file(&assets.hash, "element.js").is_some());
        assert!(assets.file("0", "element.js").is_none());
        assert!(assets.file(&assets.hash, "../Cargo.toml").is_none());
    }
}
