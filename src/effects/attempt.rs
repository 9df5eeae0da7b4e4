//! One step with one effect. What may be done follows from the ledger alone,
//! so that anybody may go on after any crash.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::Provider;
use domain::effect::{Bounced, Command, Effect as Aggregate, Failed, Remedy};
use projections::effects::{self, Author, Effect, Request, State};

use super::outcome::{Failure, Outcome};
use super::schedule::{self, Schedule};
use super::{Policy, Sessions, message, turn};
use crate::app::App;
use crate::ledger::CommandError;
use crate::providers::twilio::refusals;

/// Attempts at one effect, whatever became of them.
const ATTEMPTS_MAX: u32 = 30;

/// What came of a step.
pub(super) enum Step {
    /// Something is on the ledger, up to this position.
    Taken(i64),
    /// Nothing can be done before this has passed.
    Later(Duration),
}

/// Whoever works on a lane.
pub(super) struct Worker<'a> {
    pub(super) app: &'a App,
    pub(super) sessions: &'a Sessions,
}

impl Worker<'_> {
    /// Takes the next step with an effect.
    ///
    /// # Errors
    /// When the ledger or the database does not answer.
    pub(super) async fn step(&self, effect: &Effect) -> anyhow::Result<Step> {
        match effect.state {
            State::Bounced => self.bounced(effect).await,
            State::Waiting => match self.not_owed(effect) {
                Some(reason) => self.drop_it(effect, reason).await,
                None => self.attempt(effect, None).await,
            },
            State::Attempted => self.abandoned(effect).await,
            State::Uncertain => self.uncertain(effect).await,
            // Not open: the row has changed since it was chosen.
            State::Dead | State::Done | State::Dropped => Ok(Step::Later(self.policy().look_again)),
        }
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.app.config.effects
    }

    /// Why an effect is not to be settled any more.
    fn not_owed(&self, effect: &Effect) -> Option<&'static str> {
        if effect.expires_at <= self.app.source.now() {
            return Some("its time is over");
        }
        match &effect.request {
            Request::Turn { provider, .. }
                if *provider == Provider::Builderbot && !self.app.config.builderbot_reply =>
            {
                Some("replies through builderbot are switched off (BUILDERBOT_REPLY)")
            }
            _ => None,
        }
    }

    async fn drop_it(&self, effect: &Effect, reason: &str) -> anyhow::Result<Step> {
        let reason = || reason.to_owned();
        self.execute(effect, || Command::Drop { reason: reason() })
            .await
    }

    /// Makes an attempt: on the ledger first, then in the world.
    async fn attempt(&self, effect: &Effect, looked_up: Option<u32>) -> anyhow::Result<Step> {
        let attempt = attempts(effect) + 1;
        let began = tokio::time::Instant::now();
        let at = self.app.source.now();
        let command = || Command::Attempt {
            attempt,
            looked_up,
            at,
        };
        let Step::Taken(_) = self.execute(effect, command).await? else {
            return Ok(Step::Later(self.policy().look_again));
        };
        if began.elapsed() > self.policy().send_within {
            let failure = Failure::ours(
                Remedy::Retry,
                "it took too long to record, so it was not made",
            );
            return self.report(effect, attempt, Outcome::Failed(failure)).await;
        }
        let outcome = match &effect.request {
            Request::Turn { .. } => tokio::select! {
                outcome = turn::ask(self, effect, attempt) => outcome?,
                // Asking again harms nobody; waiting for the agent holds up the stop.
                () = self.app.stopping.cancelled() => {
                    Outcome::Uncertain("the process was stopped".to_owned())
                }
            },
            _ => message::send(self, effect, attempt, at).await?,
        };
        self.report(effect, attempt, outcome).await
    }

    /// An attempt of which there is no outcome: whoever made it is gone, or is
    /// still at it.
    async fn abandoned(&self, effect: &Effect) -> anyhow::Result<Step> {
        let attempt = attempts(effect);
        let reason = || "whoever attempted it did not say what became of it".to_owned();
        if matches!(effect.request, Request::Turn { .. }) {
            return self
                .report(effect, attempt, Outcome::Uncertain(reason()))
                .await;
        }
        if let Ok(Some(sent)) = message::look_up(self, effect).await {
            return self.report(effect, attempt, Outcome::Sent(sent)).await;
        }
        let left = self.is_alone_for().saturating_sub(self.age(effect));
        if !left.is_zero() {
            return Ok(Step::Later(left.min(self.policy().look_again)));
        }
        self.report(effect, attempt, Outcome::Uncertain(reason()))
            .await
    }

    /// An attempt that may have arrived.
    async fn uncertain(&self, effect: &Effect) -> anyhow::Result<Step> {
        let attempt = attempts(effect);
        if matches!(effect.request, Request::Turn { .. }) {
            return self.again(effect, "the agent never answered").await;
        }
        match message::look_up(self, effect).await {
            Ok(Some(sent)) => return self.report(effect, attempt, Outcome::Sent(sent)).await,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(effect = effect.id, %error, "could not look a message up");
                if self.not_owed(effect).is_some() {
                    let words = "nobody knows whether it went out: it could not be looked up";
                    let failure = Failure::ours(Remedy::DeadLetter, words);
                    return self.report(effect, attempt, Outcome::Failed(failure)).await;
                }
                // The longer it lasts, the less often.
                let pause = (self.age(effect) / 4).min(Duration::from_secs(30));
                return Ok(Step::Later(pause.max(self.policy().look_again)));
            }
        }
        let may_arrive = match effect.request.provider() {
            Provider::Builderbot => self.policy().mirrored_within,
            _ => self.is_alone_for() + self.policy().arrives_within,
        };
        if self.age(effect) < may_arrive {
            return Ok(Step::Later(self.policy().look_again));
        }
        if effect.request.provider() == Provider::Builderbot {
            let failure = Failure::ours(
                Remedy::DeadLetter,
                "nobody knows whether it went out: builderbot gives no ids and has not told of it",
            );
            return self.report(effect, attempt, Outcome::Failed(failure)).await;
        }
        self.again(effect, "the provider never answered").await
    }

    /// One more attempt after one that is surely not there, or that harms
    /// nobody. That nobody knew of it was mostly our own doing, a kill or a
    /// stop, so the schedule does not count it; but it does not go on for ever.
    async fn again(&self, effect: &Effect, reason: &'static str) -> anyhow::Result<Step> {
        if let Some(silenced) = self.silenced(effect).await? {
            return self.drop_it(effect, silenced).await;
        }
        let attempt = attempts(effect);
        if attempt >= ATTEMPTS_MAX || self.not_owed(effect).is_some() {
            let failure = Failure::ours(Remedy::DeadLetter, reason);
            return self.report(effect, attempt, Outcome::Failed(failure)).await;
        }
        self.attempt(effect, Some(attempt)).await
    }

    /// Why nothing more is to be said, if the lane was silenced since.
    async fn silenced(&self, effect: &Effect) -> anyhow::Result<Option<&'static str>> {
        let mut conn = self.app.pool.acquire().await?;
        let lane = effects::lane(&mut conn, &effect.lane).await?;
        Ok(lane.and_then(|lane| lane.silences(effect.author)))
    }

    /// The provider took a message and could not deliver it.
    async fn bounced(&self, effect: &Effect) -> anyhow::Result<Step> {
        let code = effect.error_code.as_deref().unwrap_or_default();
        let remedy = self.possible(effect, refusals::remedy(code));
        let (remedy, retry_at) = self.retry_at(effect, remedy, None);
        let Some(message_id) = effect.provider_message_id.clone() else {
            return Ok(Step::Later(self.policy().look_again));
        };
        let command = || {
            Command::ReportBounced(Bounced {
                message_id: message_id.clone(),
                code: effect.error_code.clone(),
                remedy,
                retry_at,
            })
        };
        self.execute(effect, command).await
    }

    /// Puts on the ledger what an attempt came to.
    async fn report(
        &self,
        effect: &Effect,
        attempt: u32,
        outcome: Outcome,
    ) -> anyhow::Result<Step> {
        let (kind, word) = (effect.kind.as_str(), outcome.word());
        metrics::counter!("bitacora_effect_attempts_total", "kind" => kind, "outcome" => word)
            .increment(1);
        match outcome {
            Outcome::Sent(sent) => {
                let sent = || Command::ReportSent(sent.clone());
                self.execute(effect, sent).await
            }
            Outcome::Answered(answered) => {
                let answered = || Command::ReportAnswered(answered.clone());
                self.execute(effect, answered).await
            }
            Outcome::Uncertain(reason) => {
                tracing::warn!(
                    effect = effect.id,
                    attempt,
                    reason,
                    "an attempt is uncertain"
                );
                let reason = || reason.clone();
                let command = || Command::ReportUncertain {
                    attempt,
                    reason: reason(),
                };
                self.execute(effect, command).await
            }
            Outcome::Failed(failure) => {
                let remedy = self.possible(effect, failure.remedy);
                let (remedy, retry_at) = self.retry_at(effect, remedy, failure.retry_after);
                let (status, code) = (failure.status, failure.code);
                tracing::warn!(effect = effect.id, attempt, status, code, %remedy, "an attempt failed");
                let failed = Failed {
                    attempt,
                    status,
                    code,
                    message: failure.message,
                    remedy,
                    retry_at,
                };
                let command = || Command::ReportFailed(failed.clone());
                self.execute(effect, command).await
            }
        }
    }

    /// A template helps where there is one to send: for the first message.
    fn possible(&self, effect: &Effect, remedy: Remedy) -> Remedy {
        let has_template = self.app.config.first_content_sid.is_some();
        let may_be_one = match &effect.request {
            Request::Message { template, .. } => {
                effect.author == Author::System && template.is_none() && !effect.as_template
            }
            Request::Turn { .. } | Request::Code { .. } => false,
        };
        match remedy {
            Remedy::Template if !(has_template && may_be_one) => Remedy::DeadLetter,
            remedy => remedy,
        }
    }

    /// When it is tried again, by the schedule; a dead letter where the
    /// schedule is at its end or it would be too late.
    fn retry_at(
        &self,
        effect: &Effect,
        remedy: Remedy,
        wanted: Option<Duration>,
    ) -> (Remedy, Option<DateTime<Utc>>) {
        let now = self.app.source.now();
        match remedy {
            Remedy::Template => (remedy, Some(now)),
            Remedy::Retry => {
                let failures = effect.failures.cast_unsigned() + 1;
                let pause = schedule(effect).pause(failures, wanted, &self.app.source);
                let at = pause.map(|pause| now + pause / self.policy().hurry.max(1));
                match at.filter(|at| *at < effect.expires_at) {
                    Some(at) => (remedy, Some(at)),
                    None => (Remedy::DeadLetter, None),
                }
            }
            Remedy::OptOut | Remedy::DeadLetter => (remedy, None),
        }
    }

    /// Carries a command out; what is known already, or known better, is no
    /// error.
    async fn execute(
        &self,
        effect: &Effect,
        command: impl Fn() -> Command,
    ) -> anyhow::Result<Step> {
        let metadata = HashMap::from([("actor".to_owned(), "worker".to_owned())]);
        let store = self.app.store.about(effect.request.contact());
        let executed = store.execute::<Aggregate>(&effect.id, command, metadata);
        match executed.await {
            Ok(position) => Ok(Step::Taken(position)),
            Err(CommandError::Refused(refusal)) => {
                tracing::debug!(effect = effect.id, %refusal, "others have gone on with an effect");
                Ok(Step::Later(self.policy().look_again))
            }
            Err(CommandError::Ledger(words)) => Err(anyhow::anyhow!(words)),
        }
    }

    /// How long ago the last attempt was put on the ledger.
    fn age(&self, effect: &Effect) -> Duration {
        let at = effect.attempted_at.unwrap_or(DateTime::<Utc>::MIN_UTC);
        (self.app.source.now() - at).to_std().unwrap_or_default()
    }

    /// How long an attempt is left to whoever made it.
    fn is_alone_for(&self) -> Duration {
        let policy = self.policy();
        policy.send_within + self.app.config.twilio.policy.one_request() + policy.outcome_within
    }
}

fn attempts(effect: &Effect) -> u32 {
    effect.attempts.cast_unsigned()
}

fn schedule(effect: &Effect) -> Schedule {
    match effect.request {
        Request::Turn { .. } => schedule::TURN,
        Request::Message { .. } => schedule::MESSAGE,
        Request::Code { .. } => schedule::CODE,
    }
}
