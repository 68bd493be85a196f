//! The past of installations beside a release that keeps none.

use super::store;
use crosspoint_core::{
    Clock, CustomerId, FleetScope, Installation, InstallationState, Installations, SaveInstallation, Saved,
};
use crosspoint_testkit::{envelope, scope};
use serde_json::json;

async fn save(store: &crate::Sqlite, fleet: &FleetScope, mut record: Installation, n: u64) -> Installation {
    record.config = json!({ "n": n });
    let id = record.id;
    let saved = store.save(fleet.into(), SaveInstallation::new(record)).await.unwrap();
    assert_eq!(saved, Saved::Applied);
    Installations::get(store, fleet.into(), id).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_an_older_release_changed_is_not_made_up() {
    let (_folder, clock, store) = store().await;
    let (id, fleet) = (envelope::installation("acme"), scope::fleet());
    let owner = CustomerId::new("acme").unwrap();
    let mut draft = Installation::new(id, owner, "demo", "1.0.0", clock.now());
    draft.state = InstallationState::Active;
    let mut record = save(&store, &fleet, draft, 1).await;
    let older = store.write(|ledger| {
        let text = "UPDATE cp_installation SET config = '{\"n\":2}', revision = revision + 1";
        for _ in 0..2 {
            ledger.db.execute(text, [])?;
        }
        Ok(())
    });
    older.await.unwrap();
    record.revision += 2;
    save(&store, &fleet, record, 4).await;
    let mut found = Vec::new();
    for revision in 1..=4 {
        let was = store.as_of((&fleet).into(), id, revision).await.unwrap();
        found.push(was.map(|was| was.config["n"].clone()));
    }
    assert_eq!(found, [None, None, Some(json!(2)), Some(json!(4))]);
}
