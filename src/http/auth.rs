//! Who calls: a person with a login token, or a service with its own.
//! Contract, section 0.

use std::sync::Arc;

use domain::user::Role;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use poem::Request;
use poem_openapi::SecurityScheme;
use poem_openapi::auth::{ApiKey, Bearer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::Failure;
use crate::app::App;

/// How long a login lasts.
const TOKEN_HOURS: i64 = 12;

/// The claims of a login token (HS256).
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    role: Role,
    iat: i64,
    exp: i64,
}

/// A person, by the word of a login token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The token's subject: a user's id, or whatever another issuer with the
    /// same secret calls them.
    pub subject: String,
    /// What the person may do.
    pub role: Role,
}

/// One of our other services.
#[derive(Clone, Debug)]
pub struct Service;

/// `Authorization: Bearer <JWT>`, from `POST /api/auth/login`.
#[derive(SecurityScheme)]
#[oai(
    rename = "person",
    ty = "bearer",
    bearer_format = "JWT",
    checker = "check_bearer"
)]
pub struct PersonAuth(Person);

/// `X-Service-Token`: one of our other services.
#[derive(SecurityScheme)]
#[oai(
    rename = "service",
    ty = "api_key",
    key_name = "X-Service-Token",
    key_in = "header",
    checker = "check_service"
)]
pub struct ServiceAuth(Service);

/// `?access_token=<JWT>`: for `EventSource`, which cannot set headers.
#[derive(SecurityScheme)]
#[oai(
    rename = "person_in_query",
    ty = "api_key",
    key_name = "access_token",
    key_in = "query",
    checker = "check_query"
)]
pub struct QueryAuth(Person);

/// Whoever may call most routes.
#[derive(SecurityScheme)]
pub enum Auth {
    /// A person.
    Person(PersonAuth),
    /// A service.
    Service(ServiceAuth),
}

/// Whoever may open a stream of events.
#[derive(SecurityScheme)]
pub enum StreamAuth {
    /// A person.
    Person(PersonAuth),
    /// A person whose browser cannot set headers.
    Query(QueryAuth),
    /// A service.
    Service(ServiceAuth),
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A person.
    Person(Person),
    /// One of our other services.
    Service,
}

/// What a caller must be for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever may make calls: everybody but the auditor.
    Operate,
    /// Our other services, and whoever may stand in for one: admin.
    Service,
    /// Whoever may see whole phone numbers: supervisor, admin, auditor.
    Reveal,
    /// Whoever may read the ledger itself: auditor, admin.
    Auditor,
    /// Whoever may change how things run: admin.
    Admin,
}

impl From<Auth> for Caller {
    fn from(auth: Auth) -> Self {
        match auth {
            Auth::Person(PersonAuth(person)) => Self::Person(person),
            Auth::Service(_) => Self::Service,
        }
    }
}

impl From<StreamAuth> for Caller {
    fn from(auth: StreamAuth) -> Self {
        match auth {
            StreamAuth::Person(PersonAuth(person)) | StreamAuth::Query(QueryAuth(person)) => {
                Self::Person(person)
            }
            StreamAuth::Service(_) => Self::Service,
        }
    }
}

impl Caller {
    /// Whether the caller may.
    pub fn may(&self, access: Access) -> bool {
        let Self::Person(person) = self else {
            return matches!(access, Access::Operate | Access::Service);
        };
        match access {
            Access::Operate => person.role != Role::Auditor,
            Access::Reveal => person.role != Role::Agent,
            Access::Auditor => matches!(person.role, Role::Auditor | Role::Admin),
            Access::Service | Access::Admin => person.role == Role::Admin,
        }
    }

    /// Refuses a caller who may not.
    ///
    /// # Errors
    /// 403.
    pub fn require(&self, access: Access) -> Result<(), Failure> {
        if self.may(access) {
            return Ok(());
        }
        Err(Failure::forbidden(match access {
            Access::Operate => "An auditor changes nothing",
            Access::Service => "This is for our other services, and the role admin",
            Access::Reveal => "This needs the role supervisor, admin or auditor",
            Access::Auditor => "This needs the role auditor or admin",
            Access::Admin => "This needs the role admin",
        }))
    }

    /// How the caller is named in the audit log.
    pub fn actor(&self) -> String {
        match self {
            Self::Person(person) => format!("user:{}", person.subject),
            Self::Service => "service".to_owned(),
        }
    }

    /// The role, of a person.
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::Person(person) => Some(person.role),
            Self::Service => None,
        }
    }
}

/// A login token for a user, and when it ends.
///
/// # Errors
/// When there is no secret to sign with.
pub fn issue_token(
    app: &App,
    user_id: i32,
    role: Role,
) -> anyhow::Result<(String, chrono::DateTime<chrono::Utc>)> {
    let now = app.source.now();
    let expires_at = now + chrono::Duration::hours(TOKEN_HOURS);
    let claims = Claims {
        sub: user_id.to_string(),
        role,
        iat: now.timestamp(),
        exp: expires_at.timestamp(),
    };
    let secret = app
        .config
        .jwt_secrets
        .first()
        .ok_or_else(|| anyhow::anyhow!("no JWT_SECRET"))?;
    let token = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )?;
    Ok((token, expires_at))
}

/// Reads a login token; `None` when it is not ours, or over.
pub fn read_token(app: &App, token: &str) -> Option<Person> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_required_spec_claims(&["exp", "sub"]);
    // Checked against our own clock below.
    validation.validate_exp = false;
    let claims = app.config.jwt_secrets.iter().find_map(|secret| {
        jsonwebtoken::decode::<Claims>(
            token,
            &DecodingKey::from_secret(secret.as_bytes()),
            &validation,
        )
        .ok()
    })?;
    let Claims { sub, role, exp, .. } = claims.claims;
    (app.source.now().timestamp() < exp).then_some(Person { subject: sub, role })
}

/// Who calls, before any operation has asked; `None` when nobody is known.
pub fn caller_of(app: &App, request: &Request) -> Option<Caller> {
    // As with `Auth`: of two good credentials, the person's.
    let bearer = request.header("authorization");
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    if let Some(person) = bearer.and_then(|token| read_token(app, token)) {
        return Some(Caller::Person(person));
    }
    let token = request.header("x-service-token")?;
    is_one_of(&app.config.service_tokens, token).then_some(Caller::Service)
}

/// Whether a text is one of the secrets, in a time that tells nothing: the
/// digests are compared, all of them, so that lengths do not matter either.
pub fn is_one_of(secrets: &[String], given: &str) -> bool {
    let given = Sha256::digest(given.as_bytes());
    let found = secrets
        .iter()
        .map(|secret| Sha256::digest(secret.as_bytes()).ct_eq(&given));
    found
        .fold(subtle::Choice::from(0), |any, this| any | this)
        .into()
}

fn app(request: &Request) -> Option<&Arc<App>> {
    request.data::<Arc<App>>()
}

async fn check_bearer(request: &Request, bearer: Bearer) -> Option<Person> {
    read_token(app(request)?, &bearer.token)
}

async fn check_query(request: &Request, key: ApiKey) -> Option<Person> {
    read_token(app(request)?, &key.key)
}

async fn check_service(request: &Request, key: ApiKey) -> Option<Service> {
    is_one_of(&app(request)?.config.service_tokens, &key.key).then_some(Service)
}
