//! All of this again for an ordinary user.

#[test]
fn everything_holds_for_an_ordinary_user() {
    crate::machine::again_for_an_ordinary_user("sandbox::");
}
