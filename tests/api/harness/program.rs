//! The program itself, as an operator runs it: a process with settings, a
//! log, an exit code.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::app::{
    BUILDERBOT_TOKEN, ELEVENLABS_SECRET, ELEVENLABS_TOKEN, JWT_SECRET, PUBLIC_URL, SERVICE_TOKEN,
    TWILIO_AUTH_TOKEN, TWILIO_TOKEN,
};

/// How long a start or a stop may take before the test says so.
const PATIENCE: Duration = Duration::from_secs(30);

/// Every setting that `serve` needs beside the database.
pub const SETTINGS: &[(&str, &str)] = &[
    ("PORT", "0"),
    ("HOST", "127.0.0.1"),
    ("PUBLIC_URL", PUBLIC_URL),
    ("JWT_SECRET", JWT_SECRET),
    ("MICROSERVICE_TOKEN", SERVICE_TOKEN),
    ("ELEVENLABS_WEBHOOK_TOKEN", ELEVENLABS_TOKEN),
    ("ELEVENLABS_WEBHOOK_SECRET", ELEVENLABS_SECRET),
    ("BUILDERBOT_WEBHOOK_TOKEN", BUILDERBOT_TOKEN),
    ("TWILIO_WEBHOOK_TOKEN", TWILIO_TOKEN),
    ("TWILIO_AUTH_TOKEN", TWILIO_AUTH_TOKEN),
];

/// The program with these arguments and settings, and nothing of ours.
pub fn command(args: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitacora"));
    command
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(settings.iter().copied())
        // No `.env` of the developer's lies here or above.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// What a command that ends by itself leaves behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub async fn run(args: &[&str], settings: &[(&str, &str)], stdin: &str) -> Ended {
    let mut command = command(args, settings);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // It may end without reading a word.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes()).await;
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output());
    let output = output.await.expect("the command did not end").unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `bitacora serve`, running.
pub struct Program {
    pub url: String,
    child: Child,
    said: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Program {
    /// Starts it and waits until it serves. Later settings win.
    pub async fn serve(database_url: &str, settings: &[(&str, &str)]) -> Self {
        let all = [SETTINGS, &[("DATABASE_URL", database_url)], settings].concat();
        Self::start(&["serve"], &all).await
    }

    /// Starts any long-running command and waits until it serves.
    pub async fn start(args: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut child = command(args, settings).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (address, mut known) = watch::channel(None);
        let stdout = child.stdout.take().unwrap();
        let stderr = child.stderr.take().unwrap();
        let readers = vec![
            tokio::spawn(read(stdout, said.clone(), watch::channel(None).0)),
            tokio::spawn(read(stderr, said.clone(), address)),
        ];
        let serving = tokio::time::timeout(PATIENCE, known.wait_for(Option::is_some)).await;
        let address: Option<String> = serving.ok().and_then(|found| found.ok()?.clone());
        let Some(address) = address else {
            panic!("it did not start serving:\n{}", said.lock().unwrap());
        };
        Self { url: format!("http://{address}"), child, said, readers }
    }

    /// Everything it has written to standard output and standard error so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
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

    /// Waits for its end; gives all that it wrote.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("it did not end:\n{}", self.said())).unwrap();
        for reader in self.readers.drain(..) {
            reader.await.unwrap();
        }
        (status, self.said())
    }
}

/// Reads what it writes, and finds the address in the line that says so.
async fn read(
    pipe: impl AsyncRead + Unpin,
    said: Arc<Mutex<String>>,
    address: watch::Sender<Option<String>>,
) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let parsed: Value = serde_json::from_str(&line).unwrap_or_default();
        if parsed["message"] == "serving" {
            address.send_replace(parsed["address"].as_str().map(str::to_owned));
        }
        let mut said = said.lock().unwrap();
        said.push_str(&line);
        said.push('\n');
    }
}
