//! Logins, and the people who have one.

use std::collections::HashMap;
use std::sync::Arc;

use domain::user::{self, Role};
use poem::web::Data;
use poem::{Endpoint, EndpointExt, Request};
use poem_openapi::param::Query;
use poem_openapi::payload::{Json, Response};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use super::audit::{self, Act};
use super::auth::{self, Access, Auth, Caller, Person};
use super::body::Body;
use super::error::Failure;
use super::reply::{self, Page, Success};
use super::time::Time;
use super::{Tag, context};
use crate::accounts::{Login, NewUser, RegisterError};
use crate::app::App;

/// Who wants in.
#[derive(Deserialize, Object)]
#[oai(example)]
struct Credentials {
    /// E-mail address, in any case.
    email: String,
    /// Password.
    password: String,
}

impl poem_openapi::types::Example for Credentials {
    fn example() -> Self {
        Self {
            email: "admin@bitacora.local".to_owned(),
            password: "the password that the first start printed".to_owned(),
        }
    }
}

/// A login.
#[derive(Debug, Object)]
struct Session {
    /// For `Authorization: Bearer <token>`.
    token: String,
    /// When it ends.
    expires_at: Time,
    /// Who it is.
    user: UserView,
}

/// A login's answer: inside `data` as everywhere, and beside it for the
/// front-ends that read it there.
#[derive(Debug, Object)]
struct LoginAnswer {
    /// Always `true`.
    success: bool,
    /// For `Authorization: Bearer <token>`.
    token: String,
    /// When it ends.
    expires_at: Time,
    /// Who it is.
    user: UserView,
    /// The same three again.
    data: Session,
}

/// A person to register.
#[derive(Deserialize, Object)]
#[oai(example, rename_all = "camelCase")]
#[serde(rename_all = "camelCase")]
struct NewUserBody {
    /// Full name.
    name: String,
    /// E-mail address.
    email: String,
    /// 8 to 200 characters.
    password: String,
    /// `agent`, `supervisor`, `admin` or `auditor`.
    role: String,
    /// The voice agent that calls in the person's name.
    agent_id: Option<String>,
}

impl poem_openapi::types::Example for NewUserBody {
    fn example() -> Self {
        Self {
            name: "Ana García".to_owned(),
            email: "ana@example.com".to_owned(),
            password: "una contraseña larga".to_owned(),
            role: "supervisor".to_owned(),
            agent_id: None,
        }
    }
}

/// A person.
#[derive(Clone, Debug, Object)]
#[oai(rename = "User", rename_all = "camelCase", example)]
struct UserView {
    /// The person's number here.
    id: i32,
    /// Full name.
    name: String,
    /// E-mail address.
    email: String,
    /// `agent`, `supervisor`, `admin` or `auditor`.
    role: String,
    /// The voice agent that calls in the person's name.
    agent_id: Option<String>,
}

impl poem_openapi::types::Example for UserView {
    fn example() -> Self {
        Self {
            id: 2,
            name: "Ana García".to_owned(),
            email: "ana@example.com".to_owned(),
            role: "supervisor".to_owned(),
            agent_id: None,
        }
    }
}

impl From<user::Registered> for UserView {
    fn from(user: user::Registered) -> Self {
        Self {
            id: user.user_id,
            name: user.name,
            email: user.email,
            role: user.role.to_string(),
            agent_id: user.agent_id,
        }
    }
}

/// What registering answers.
#[derive(ApiResponse)]
enum Created {
    /// The person is registered.
    #[oai(status = 201)]
    Created(Json<Success<UserView>>),
}

/// Routes for people.
pub struct Api;

#[OpenApi(tag = "Tag::Users")]
impl Api {
    /// Log in
    ///
    /// Ten failures for one e-mail address or from one network address within 15 minutes: 429.
    #[oai(path = "/api/auth/login", method = "post", operation_id = "login")]
    async fn login(
        &self,
        app: Data<&Arc<App>>,
        body: Body<Credentials>,
    ) -> Result<Json<LoginAnswer>, Failure> {
        let Body(Credentials { email, password }) = body;
        let from = context::current().remote_addr;
        let login = app.accounts.login(&email, password, &from).await?;
        // An address that is nobody's may still be somebody's: keep a keyed
        // hash, which tells attempts on the same address together.
        let attempted = || {
            format!(
                "email:{}",
                app.phone_index.key(&email.trim().to_lowercase())
            )
        };
        let refuse = |outcome: &'static str| Act {
            caller: None,
            action: "login",
            target: Some(attempted()),
            outcome,
        };
        match login {
            Login::Welcome(user) => {
                let person = Person {
                    subject: user.user_id.to_string(),
                    role: user.role,
                };
                let caller = Caller::Person(person);
                let target = Some(caller.actor());
                audit::record(
                    &app,
                    Act {
                        caller: Some(&caller),
                        action: "login",
                        target,
                        outcome: "ok",
                    },
                )
                .await?;
                let (token, expires_at) = auth::issue_token(&app, user.user_id, user.role)?;
                let user = UserView::from(user);
                let expires_at = Time(expires_at);
                let data = Session {
                    token: token.clone(),
                    expires_at,
                    user: user.clone(),
                };
                Ok(Json(LoginAnswer {
                    success: true,
                    token,
                    expires_at,
                    user,
                    data,
                }))
            }
            Login::Wrong => {
                audit::record(&app, refuse("unauthorized")).await?;
                Err(Failure::unauthorized())
            }
            Login::TooMany(retry_after) => {
                audit::record(&app, refuse("too_many_requests")).await?;
                Err(Failure::too_many(
                    "Too many failed logins, try again later",
                    retry_after,
                ))
            }
        }
    }

    /// Register a person
    ///
    /// For the role `admin`.
    #[oai(
        path = "/api/users",
        method = "post",
        operation_id = "create_user",
        transform = "for_admins"
    )]
    async fn create(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        body: Body<NewUserBody>,
    ) -> Result<Response<Created>, Failure> {
        let caller = Caller::from(auth);
        let act = register(&app, &caller, body.0);
        let target = |made: Option<&(user::Registered, i64)>| {
            made.map(|(user, _)| format!("user:{}", user.user_id))
        };
        let ((user, position), audited_at) =
            audit::recorded_of(&app, &caller, Access::Admin, "create_user", target, act).await?;
        let position = position.max(audited_at);
        app.readable(&["users", "audit_log"], position).await;
        let created = Created::Created(reply::success(UserView::from(user)));
        Ok(Response::new(created).header("X-Ledger-Position", position.to_string()))
    }

    /// The people who have a login
    ///
    /// For supervisors, admins, auditors and services.
    #[oai(path = "/api/users", method = "get", operation_id = "list_users")]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// Rows of a page: 1 to 200, 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<UserView>>, Failure> {
        if let caller @ Caller::Person(_) = Caller::from(auth) {
            caller.require(Access::Reveal)?;
        }
        let limit = reply::limit(limit.0)?;
        let after: Option<i32> = reply::read_cursor(cursor.0.as_deref())?;
        let mut conn = app.pool.acquire().await?;
        let rows = projections::users::list(&mut conn, after, limit + 1).await?;
        Ok(reply::page(
            rows,
            limit,
            |row| row.id,
            |row| UserView {
                id: row.id,
                name: row.name,
                email: row.email,
                role: row.role.to_string(),
                agent_id: row.agent_id,
            },
        ))
    }
}

/// Refuses whoever may not register anybody before their body is looked at;
/// that too is on record.
fn for_admins(endpoint: impl Endpoint + 'static) -> impl Endpoint {
    endpoint.around(async |endpoint, request: Request| {
        let app = request.data::<Arc<App>>().cloned();
        if let Some(app) = app
            && let Some(caller) = auth::caller_of(&app, &request)
            && !caller.may(Access::Admin)
        {
            let nothing = async { Ok(()) };
            audit::recorded(&app, &caller, Access::Admin, "create_user", None, nothing).await?;
        }
        endpoint.call(request).await
    })
}

async fn register(
    app: &App,
    caller: &Caller,
    body: NewUserBody,
) -> Result<(user::Registered, i64), Failure> {
    let role: Role = body
        .role
        .parse()
        .map_err(|message: String| Failure::field("role", message))?;
    let new = NewUser {
        name: body.name,
        email: body.email,
        password: body.password,
        role,
        agent_id: body.agent_id,
    };
    let metadata = HashMap::from([
        ("actor".to_owned(), caller.actor()),
        ("request_id".to_owned(), context::current().request_id),
    ]);
    app.accounts
        .register(new, metadata)
        .await
        .map_err(|error| match error {
            RegisterError::Invalid { field, message } => Failure::field(field, message),
            RegisterError::Taken => Failure::conflict("email_taken", error.to_string()),
            RegisterError::Internal(error) => error.into(),
        })
}
