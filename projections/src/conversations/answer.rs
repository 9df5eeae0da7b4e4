//! What becomes of the answers that clients' messages ask for: read from the
//! table `effects`, whose policy decides on them.

use std::collections::HashMap;

use domain::Direction;
use domain::effect::turn_id;
use sqlx::{PgConnection, Row};

use super::message::Message;
use crate::effects::State;
use crate::sql::word;

/// What becomes of the agent's answer to a client's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The agent is still to be asked.
    Waiting,
    /// The agent answered.
    Answered,
    /// It was given up until a person wants it tried again.
    Failed,
    /// It is not wanted any more: a person has taken over, say.
    Dropped,
}

impl Answer {
    /// The name as it is served.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }

    pub(super) const fn of(state: State) -> Self {
        match state {
            State::Waiting | State::Attempted | State::Uncertain | State::Bounced => Self::Waiting,
            State::Done => Self::Answered,
            State::Dead => Self::Failed,
            State::Dropped => Self::Dropped,
        }
    }
}

/// What becomes of the answers to some messages, by the messages' ids. One to
/// which none is owed is not there.
///
/// # Errors
/// When the database fails.
pub async fn answers(
    conn: &mut PgConnection,
    messages: &[Message],
) -> sqlx::Result<HashMap<String, Answer>> {
    let asked = messages
        .iter()
        .filter(|row| row.direction == Direction::Inbound);
    let asked: HashMap<_, _> = asked.map(|row| (turn_id(row.position), &row.id)).collect();
    let turns: Vec<_> = asked.keys().collect();
    let sql = "select id, state from effects where id = any($1)";
    let rows = sqlx::query(sql).bind(turns).fetch_all(conn).await?;
    let mut answers = HashMap::new();
    for row in &rows {
        let turn: &str = row.try_get("id")?;
        let answer = Answer::of(word(row, "state")?);
        answers.extend(asked.get(turn).map(|id| ((*id).clone(), answer)));
    }
    Ok(answers)
}
