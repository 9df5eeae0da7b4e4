//! Local mode: what `bitacora serve` does for whoever sets no `DATABASE_URL`:
//! its own PostgreSQL, its own secrets, a first admin.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::accounts::{Accounts, NewUser};
use crate::clock;
use crate::config::{LogSettings, SecretList, ServeSettings, Settings};

/// The name under which the first admin logs in.
pub const ADMIN_EMAIL: &str = "admin@bitacora.local";
/// Bytes of randomness in a generated secret.
const SECRET_BYTES: usize = 24;
/// The one generated secret that is not only random.
const LOG_SIGNING_KEY: &str = "LOG_SIGNING_KEY";
/// The same in the master key.
const MASTER_KEY_BYTES: usize = 32;

/// Gives every secret that is not set a value of its own, kept in the data
/// directory from the first start on. Returns where they are, and whether some
/// are new.
///
/// # Errors
/// When the file cannot be read or written.
pub fn fill_secrets(
    settings: &mut ServeSettings,
    data_dir: &Path,
    source: &clock::Source,
) -> anyhow::Result<(PathBuf, bool)> {
    let (file, kept) = kept_secrets(data_dir)?;
    let mut fresh = Vec::new();
    let mut seed = [0; 32];
    source.fill(&mut seed);
    let log_name = format!("bitacora.local/{}", source.secret(4));
    let log_key = domain::log::note::signer_key(&log_name, &seed)?;
    let slots: [(&str, &mut Option<SecretList>, &str); 8] = [
        ("JWT_SECRET", &mut settings.jwt_secret, ""),
        ("MICROSERVICE_TOKEN", &mut settings.microservice_token, ""),
        (
            "ELEVENLABS_WEBHOOK_TOKEN",
            &mut settings.elevenlabs_webhook_token,
            "",
        ),
        (
            "ELEVENLABS_WEBHOOK_SECRET",
            &mut settings.elevenlabs_webhook_secret,
            "wsec_",
        ),
        (
            "BUILDERBOT_WEBHOOK_TOKEN",
            &mut settings.builderbot_webhook_token,
            "",
        ),
        (
            "TWILIO_WEBHOOK_TOKEN",
            &mut settings.twilio_webhook_token,
            "",
        ),
        ("TWILIO_AUTH_TOKEN", &mut settings.twilio_auth_token, ""),
        (LOG_SIGNING_KEY, &mut settings.log.log_signing_key, ""),
    ];
    for (name, slot, prefix) in slots {
        if slot.as_ref().is_some_and(|given| !given.is_empty()) {
            continue;
        }
        let value = kept
            .iter()
            .find(|(kept, _)| kept == name)
            .map(|(_, value)| value.clone());
        let value = value.unwrap_or_else(|| {
            let value = match name {
                LOG_SIGNING_KEY => log_key.clone(),
                _ => format!("{prefix}{}", source.secret(SECRET_BYTES)),
            };
            fresh.push(format!("{name}={value}\n"));
            value
        });
        *slot = Some(value.parse()?);
    }
    keep_secrets(&file, &fresh)?;
    Ok((file, !fresh.is_empty()))
}

/// As [`fill_secrets`], the key under which those of persons are kept. Every
/// command needs it.
///
/// # Errors
/// When the file cannot be read or written.
pub fn fill_master_key(settings: &mut Settings, source: &clock::Source) -> anyhow::Result<()> {
    const NAME: &str = "MASTER_KEY";
    if settings
        .master_key
        .as_ref()
        .is_some_and(|given| !given.is_empty())
    {
        return Ok(());
    }
    let (file, kept) = kept_secrets(&settings.data_dir)?;
    let known = kept.into_iter().find(|(name, _)| name == NAME);
    let value = match known {
        Some((_, value)) => value,
        None => {
            let value = source.secret(MASTER_KEY_BYTES);
            keep_secrets(&file, &[format!("{NAME}={value}\n")])?;
            value
        }
    };
    settings.master_key = Some(value.parse()?);
    Ok(())
}

/// The file of generated secrets, and what is in it.
fn kept_secrets(data_dir: &Path) -> anyhow::Result<(PathBuf, Vec<(String, String)>)> {
    fs::create_dir_all(data_dir).with_context(|| format!("cannot make {}", data_dir.display()))?;
    let file = data_dir.join("secrets.env");
    let kept = match dotenvy::from_path_iter(&file) {
        Ok(lines) => lines
            .collect::<Result<_, _>>()
            .with_context(|| format!("{} is damaged", file.display()))?,
        Err(_) => Vec::new(),
    };
    Ok((file, kept))
}

fn keep_secrets(file: &Path, fresh: &[String]) -> anyhow::Result<()> {
    if fresh.is_empty() {
        return Ok(());
    }
    let mut open = fs::OpenOptions::new();
    let mut out = open.create(true).append(true).open(file)?;
    fs::set_permissions(file, Permissions::from_mode(0o600))?;
    out.write_all(fresh.concat().as_bytes())?;
    Ok(out.sync_all()?)
}

/// The key of the transparency log that an earlier start generated, where the
/// settings have none.
///
/// # Errors
/// When the file is damaged.
pub fn fill_log_key(settings: &mut LogSettings, data_dir: &Path) -> anyhow::Result<()> {
    if settings
        .log_signing_key
        .as_ref()
        .is_none_or(SecretList::is_empty)
    {
        let (_, kept) = kept_secrets(data_dir)?;
        let kept = kept.into_iter().find(|(name, _)| name == LOG_SIGNING_KEY);
        settings.log_signing_key = kept.map(|(_, key)| key.parse()).transpose()?;
    }
    Ok(())
}

/// Registers the first admin, if there is nobody yet. Returns the password,
/// which is kept nowhere else.
///
/// # Errors
/// When the database does not answer.
pub async fn first_admin(
    accounts: &Accounts,
    source: &clock::Source,
) -> anyhow::Result<Option<String>> {
    if accounts.any().await? {
        return Ok(None);
    }
    let password = source.secret(9);
    let admin = NewUser {
        name: "Admin".to_owned(),
        email: ADMIN_EMAIL.to_owned(),
        password: password.clone(),
        role: domain::user::Role::Admin,
        agent_id: None,
    };
    accounts
        .register(
            admin,
            std::collections::HashMap::from([("actor".to_owned(), "local".to_owned())]),
        )
        .await?;
    Ok(Some(password))
}
