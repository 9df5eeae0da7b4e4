//! Answers kept while things happen, to ask for them again.

use serde_json::Value;

use super::TestApp;
use super::app::answer;

/// One answer, and where the ledger was.
struct Kept {
    path: String,
    position: i64,
    at: chrono::DateTime<chrono::Utc>,
    answer: (u16, Value),
}

/// What was answered.
#[derive(Default)]
pub struct Past(Vec<Kept>);

impl Past {
    /// Keeps what is answered now.
    pub async fn keep(&mut self, app: &TestApp, paths: &[String]) {
        app.settle().await;
        for path in paths {
            let answer = answered(app, path).await;
            let sql = "select coalesce(max(position), 0), clock_timestamp() from events";
            let (position, at) = sqlx::query_as(sql).fetch_one(&app.pool).await.unwrap();
            self.0.push(Kept {
                path: path.clone(),
                position,
                at,
                answer,
            });
        }
    }

    /// Every kept answer is given again, asked for by position and by time.
    pub async fn is_answered_again(&self, app: &TestApp) {
        for kept in &self.0 {
            let at = kept.at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
            for then in [kept.position.to_string(), at] {
                let path = format!("{}?as_of={then}", kept.path);
                assert_eq!(answered(app, &path).await, kept.answer, "{path}");
            }
        }
    }

    /// How many of the answers differ.
    pub fn different(&self) -> usize {
        let answers = self.0.iter().map(|kept| kept.answer.1.to_string());
        answers.collect::<std::collections::HashSet<_>>().len()
    }
}

async fn answered(app: &TestApp, path: &str) -> (u16, Value) {
    let (status, mut body) = answer(app.get_as("service", path)).await;
    body.as_object_mut().unwrap().remove("request_id");
    (status, body)
}
