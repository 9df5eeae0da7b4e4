//! Turns of many projections at a time, page by page.

use tokio::task::JoinSet;

use super::turn::Turn;
use super::{Engine, Progress};

impl Engine {
    /// A turn of each of these projections, all at a time. Each is a
    /// transaction of its own, and what becomes of one is nothing to the others.
    /// They go page by page together, so that each page is read once; and those
    /// that want nothing of it are moved on together, in one statement.
    pub async fn run_all(
        &self,
        names: impl IntoIterator<Item = &'static str>,
    ) -> Vec<(&'static str, anyhow::Result<Progress>)> {
        let mut names: Vec<_> = names.into_iter().collect();
        // What fails here fails again in a turn of its own, and is told there.
        let passed = self.pass_over(&names).await.unwrap_or_default();
        names.retain(|name| !passed.iter().any(|(passed, _)| passed == name));
        let mut turns = JoinSet::new();
        for name in names {
            let engine = self.clone();
            turns.spawn(async move { (name, engine.run_once(name).await) });
        }
        let mut done = turns.join_all().await;
        done.extend(
            passed
                .into_iter()
                .map(|(name, progress)| (name, Ok(progress))),
        );
        done
    }

    /// Moves the projections on that want nothing of the next page, as far as
    /// this process knows where they are. Gives which are: not what another
    /// replica holds, or has moved, or is of another version.
    async fn pass_over(
        &self,
        names: &[&'static str],
    ) -> anyhow::Result<Vec<(&'static str, Progress)>> {
        let known = self.folded.borrow().clone();
        let Some(&after) = names.iter().filter_map(|name| known.get(name)).max() else {
            return Ok(vec![]);
        };
        // The page is found to stand within the transaction that takes it for
        // read: PostgreSQL may crash and take the page away, and then it does so
        // with both.
        let mut turn = Turn::begin(&self.pool).await?;
        let page = self.pages.after(turn.conn()?, after).await?;
        let (mut unwanted, mut versions) = (vec![], vec![]);
        for name in names.iter().filter(|name| known.get(*name) == Some(&after)) {
            let projection = self.projection(name)?;
            let wanted = page.wanted(projection.event_types(), after);
            if wanted.is_ok_and(|events| events.is_empty()) {
                unwanted.push(*name);
                versions.push(projection.version());
            }
        }
        if page.is_empty() || unwanted.is_empty() {
            turn.roll_back().await?;
            return Ok(vec![]);
        }
        let position = page.upto();
        let sql = "update projection_checkpoints as moved
                      set position = $4, error = null, updated_at = now()
                     from (select name from projection_checkpoints
                             join unnest($1::text[], $2::int[]) as wanted (name, version)
                            using (name, version)
                            where build = 'live' and position = $3
                              for update of projection_checkpoints skip locked) as found
                    where moved.name = found.name and moved.build = 'live'
                returning moved.name";
        let moved = sqlx::query_scalar(sql)
            .bind(&unwanted)
            .bind(versions)
            .bind(after)
            .bind(position);
        let moved: Vec<String> = moved.fetch_all(turn.conn()?).await?;
        turn.commit().await?;
        unwanted.retain(|name| moved.iter().any(|moved| moved == name));
        let progress = Progress::Worked {
            events: 0,
            position,
        };
        let passed = unwanted.into_iter().map(|name| {
            self.know(name, Some(position));
            (name, progress)
        });
        Ok(passed.collect())
    }
}
