//! Whether the read models are what the ledger says.

use projections::Engine;
use projections::engine::Rebuild;
use sqlx::PgPool;

/// Folds what is left of the ledger, then folds all of it anew: every row must
/// be the same.
pub async fn assert_equal_a_rebuild(pool: &PgPool) {
    let index = bitacora::ledger::phone_index(pool, &[0; 32]).await.unwrap();
    let engine = Engine::new(pool.clone(), projections::all(&index)).opening(super::app::opener());
    engine.settle().await.unwrap();
    for name in engine.names() {
        let Rebuild::Done { differences, .. } = engine.rebuild(name, |_| ()).await.unwrap() else {
            panic!("{name} was not rebuilt")
        };
        assert_eq!(differences, Some(vec![]), "{name}");
    }
}
