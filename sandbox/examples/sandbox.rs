//! The sandbox alone, until `bitacora sandbox` runs it.
//!
//! `cargo run --example sandbox -- --port 4000 --webhook-base http://127.0.0.1:3000 --speed 60`

use bitacora_sandbox::{Error, Options, serve};
use clap::Parser;
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).init();
    serve(Cli::parse().options, async {
        // Without a handler for Ctrl-C it runs until it is killed.
        let _ = tokio::signal::ctrl_c().await;
    })
    .await
}
