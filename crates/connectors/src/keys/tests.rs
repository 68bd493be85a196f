use super::*;
use crosspoint_core::{Kind, SecretBox};

const CANARY: &str = "PMW3y2sSBSV2Yk0vAbJmOSj1dt3ClhVIWcqfO3nM8Zw=";
const OTHER: &str = "QFo0Jn0Vq1zO0bqj0v3l2h6mXk1o8Yw4t7r9s5u2v1w=";

fn acme() -> CustomerId {
    CustomerId::new("acme").unwrap()
}

fn secret(text: &str) -> SecretBytes {
    SecretBox::new(Box::new(text.as_bytes().to_vec()))
}

#[test]
fn the_first_key_wraps_and_the_rest_are_kept() {
    let unpadded = OTHER.trim_end_matches('=');
    let keys = KeyRing::parse(&format!(" b:{CANARY} , a:{unpadded}\n")).unwrap();
    assert_eq!(keys.ids().collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(keys.current(), "b");
    assert!(!format!("{keys:?}").contains("PMW3"));
}

#[test]
fn a_malformed_ring_is_refused_without_quoting_it() {
    let zeros = STANDARD.encode([0; 32]);
    let short = STANDARD.encode([7; 31]);
    for text in [
        CANARY.to_owned(),
        format!(":{CANARY}"),
        format!("{CANARY}:k1"),
        format!("k 1:{CANARY}"),
        format!("k1:{CANARY},k1:{OTHER}"),
        format!("k1:{CANARY},k2"),
        format!("k1:*{CANARY}"),
        format!("k1:{short}"),
        format!("k1:{zeros}"),
    ] {
        let error = KeyRing::parse(&text).unwrap_err();
        assert_eq!(error.code(), Code::SetupInvalid, "{text}");
        let shown = format!("{error:?}");
        assert!(!shown.contains("PMW3") && !shown.contains("QFo0"), "{shown}");
    }
}

#[test]
fn a_missing_ring_says_how_to_make_one() {
    let error = KeyRing::from_env("CROSSPOINT_KEYS_THAT_NOBODY_SETS").unwrap_err();
    assert_eq!(error.code(), Code::KeysMissing);
    assert_eq!(error.kind(), Kind::Setup);
    assert!(error.message().contains("/dev/urandom"), "{error}");
    assert_eq!(KeyRing::parse(" ,\n").unwrap_err().code(), Code::KeysMissing);
}

#[tokio::test]
async fn what_one_ring_wrapped_another_with_the_same_key_unwraps() {
    let old = KeyRing::parse(&format!("a:{CANARY}")).unwrap();
    let both = KeyRing::parse(&format!("b:{OTHER},a:{CANARY}")).unwrap();
    let wrapped = old.wrap(&acme(), &secret("data key")).await.unwrap();
    assert_eq!(both.wrapped_with(&wrapped).as_deref(), Some("a"));
    let back = both.unwrap(&acme(), &wrapped).await.unwrap();
    assert_eq!(back.expose_secret(), b"data key");
}

#[tokio::test]
async fn nothing_else_unwraps() {
    let ring = KeyRing::parse(&format!("a:{CANARY}")).unwrap();
    let wrapped = ring.wrap(&acme(), &secret("data key")).await.unwrap();

    let globex = CustomerId::new("globex").unwrap();
    let gone = KeyRing::parse(&format!("b:{CANARY}")).unwrap();
    let swapped = KeyRing::parse(&format!("a:{OTHER}")).unwrap();
    for (ring, customer) in [(&ring, &globex), (&gone, &acme()), (&swapped, &acme())] {
        let error = ring.unwrap(customer, &wrapped).await.unwrap_err();
        assert_eq!(error.code(), Code::SecretUnreadable);
    }
    for at in 0..wrapped.len() {
        let mut changed = wrapped.clone();
        changed[at] ^= 1;
        assert!(ring.unwrap(&acme(), &changed).await.is_err(), "byte {at}");
        assert!(ring.unwrap(&acme(), &wrapped[..at]).await.is_err(), "cut at {at}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_is_made_once_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/crosspoint.keys");

    let rings: Vec<String> = std::thread::scope(|threads| {
        let made: Vec<_> = (0..4)
            .map(|_| threads.spawn(|| KeyRing::from_file(&path).unwrap().to_text().to_string()))
            .collect();
        made.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(rings.iter().all(|text| *text == rings[0]));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "no draft is left"
    );

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let open = KeyRing::from_file(&path).unwrap_err();
    assert_eq!(open.code(), Code::SetupInvalid);
    assert!(open.to_string().contains("chmod 600"), "{open}");
}
