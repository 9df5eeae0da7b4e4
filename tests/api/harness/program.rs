//! The program itself, as an operator runs it: a process with settings, a
//! log, an exit code.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::app::{
    BUILDERBOT_TOKEN, ELEVENLABS_SECRET, ELEVENLABS_TOKEN, JWT_SECRET, MASTER_KEY, PUBLIC_URL,
    SERVICE_TOKEN, TWILIO_AUTH_TOKEN, TWILIO_TOKEN,
};

/// How long a start or an end may take before the test says so.
const PATIENCE: Duration = Duration::from_secs(60);

/// Every setting that `serve` needs beside the database.
pub const SETTINGS: &[(&str, &str)] = &[
    ("PORT", "0"),
    ("HOST", "127.0.0.1"),
    ("PUBLIC_URL", PUBLIC_URL),
    ("JWT_SECRET", JWT_SECRET),
    ("MASTER_KEY", MASTER_KEY),
    ("MICROSERVICE_TOKEN", SERVICE_TOKEN),
    ("ELEVENLABS_WEBHOOK_TOKEN", ELEVENLABS_TOKEN),
    ("ELEVENLABS_WEBHOOK_SECRET", ELEVENLABS_SECRET),
    ("BUILDERBOT_WEBHOOK_TOKEN", BUILDERBOT_TOKEN),
    ("TWILIO_WEBHOOK_TOKEN", TWILIO_TOKEN),
    ("TWILIO_AUTH_TOKEN", TWILIO_AUTH_TOKEN),
];

/// The program with these settings and none of the developer's.
fn command(args: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitacora"));
    command
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(settings.iter().copied())
        // Where no `.env` lies.
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// What a command that ends by itself leaves behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub async fn run(args: &[&str], settings: &[(&str, &str)], stdin: &str) -> Ended {
    let mut child = command(args, settings).spawn().unwrap();
    // It may end without reading a word.
    let mut pipe = child.stdin.take().unwrap();
    let _ = pipe.write_all(stdin.as_bytes()).await;
    drop(pipe);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output());
    let output = output.await.expect("it does not end").unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `bitacora user add`: Ana, an admin.
pub async fn add_ana(email: &str, settings: &[(&str, &str)], password: &str) -> Ended {
    let user = ["user", "add", "--name", "Ana", "--role", "admin"];
    let args = [&user[..], &["--email", email, "--password-stdin"]].concat();
    run(&args, settings, password).await
}

/// `bitacora serve`, running.
pub struct Program {
    pub url: String,
    child: Child,
    log: JoinHandle<String>,
}

impl Program {
    /// Starts it on a database and waits until it serves.
    pub async fn serve(database_url: &str) -> Self {
        Self::serve_with(database_url, &[]).await
    }

    /// As [`Self::serve`], with other settings in the place of the usual ones.
    pub async fn serve_with(database_url: &str, other: &[(&str, &str)]) -> Self {
        let settings = [SETTINGS, &[("DATABASE_URL", database_url)], other].concat();
        let mut child = command(&["serve"], &settings).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (serving, served) = oneshot::channel();
        let log = tokio::spawn(read_log(stderr, serving));
        match tokio::time::timeout(PATIENCE, served).await {
            Ok(Ok(address)) => Self {
                url: format!("http://{address}"),
                child,
                log,
            },
            _ => {
                child.kill().await.unwrap();
                panic!("it did not start serving:\n{}", log.await.unwrap());
            }
        }
    }

    /// Kills it as the kernel does: nothing of it runs any more.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop, as an orchestrator does.
    pub fn terminate(&self) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    }

    /// Waits for its end; gives the log.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = status.expect("it does not end").unwrap();
        (status, self.log.await.unwrap())
    }
}

/// Reads its log to the end, and tells the address once it says that it serves.
async fn read_log(
    log: BufReader<tokio::process::ChildStderr>,
    serving: oneshot::Sender<String>,
) -> String {
    let (mut lines, mut all, mut serving) = (log.lines(), String::new(), Some(serving));
    while let Ok(Some(line)) = lines.next_line().await {
        let said: Value = serde_json::from_str(&line).unwrap_or_default();
        if let ("serving", Some(address)) = (
            said["message"].as_str().unwrap_or_default(),
            said["address"].as_str(),
        ) && let Some(serving) = serving.take()
        {
            let _ = serving.send(address.to_owned());
        }
        all.push_str(&line);
        all.push('\n');
    }
    all
}
