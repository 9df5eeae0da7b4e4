//! A first bench.
mod backlog;
mod load;
mod process;
mod rebuild;
mod webhook;

use load::Pace;
use process::Service;
use sqlx::Connection;
use std::process::Command;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if args[1] == "backlog" {
        return folding(args[2].parse()?, &args[3..]);
    }
    let n: u64 = args[1].parse()?;
    let size: usize = args[2].parse()?;
    let mode = &args[3];
    let conns: usize = args[4].parse()?;
    let url = std::env::var("TEST_DATABASE_URL")?;
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let postmaster: u32 = rt.block_on(async {
        let mut c = sqlx::PgConnection::connect(&url).await?;
        let _ = sqlx::query("drop database if exists b")
            .execute(&mut c)
            .await?;
        sqlx::query("create database b").execute(&mut c).await?;
        let t: String = sqlx::query_scalar("select pg_read_file('postmaster.pid')")
            .fetch_one(&mut c)
            .await?;
        anyhow::Ok(t.lines().next().unwrap_or_default().parse()?)
    })?;
    let dburl = url.replace("/postgres?", "/b?");
    let dburl = if dburl == url {
        url.trim_end_matches("/postgres").to_owned() + "/b"
    } else {
        dburl
    };
    let at = chrono::Utc::now().timestamp();
    let mut cmd =
        Command::new(std::env::var("BITACORA").unwrap_or("target/release/bitacora".into()));
    cmd.arg("serve");
    if mode != "all" {
        cmd.arg(mode);
    }
    cmd.env("DATABASE_URL", &dburl)
        .env("JWT_SECRET", "0123456789012345678901234567890123456789")
        .env(
            "MICROSERVICE_TOKEN",
            "0123456789012345678901234567890123456789",
        )
        .env("ELEVENLABS_WEBHOOK_SECRET", webhook::SECRET);
    let svc = Service::start(&mut cmd)?;
    println!("ready after {:?}", svc.ready_after);
    for round in 0..3u64 {
        let reqs: Vec<_> = (0..n)
            .map(|i| webhook::request(&webhook::body(round * n + i, at, size), at))
            .collect();
        let (s0, p0) = (svc.cpu(), process::postgres_cpu(postmaster));
        let out = load::run(svc.address, reqs, conns, Pace::Closed)?;
        let (s1, p1) = (svc.cpu(), process::postgres_cpu(postmaster));
        let per = |d: std::time::Duration| d.as_secs_f64() * 1e6 / n as f64;
        println!(
            "{:.0}/s p50 {:.2} p99 {:.2} max {:.2} {:?} cpu us: service {:.1} postgres {:.1} load {:.1} rss {:?}",
            out.rate(),
            out.latency_ms(0.5),
            out.latency_ms(0.99),
            out.latency_ms(1.0),
            out.statuses,
            per(s1 - s0),
            per(p1 - p0),
            per(out.cpu),
            svc.memory_kib()
        );
    }
    Ok(())
}

/// `bench backlog 100000 [program] [backlog|rebuild]`
fn folding(webhooks: u64, args: &[String]) -> anyhow::Result<()> {
    let url = std::env::var("TEST_DATABASE_URL")?;
    let program = args
        .first()
        .map_or("target/release/bitacora", String::as_str);
    let what = args.get(1).map_or("all", String::as_str);
    let rt = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    rt.block_on(async {
        let server = backlog::Server::at(&url).await?;
        let show = |name: &str, outcome: &backlog::Outcome| {
            let (service, postgres) = outcome.cpu_us();
            println!(
                "{name}: {} events, {:.0}/s, cpu us: service {service:.1} postgres {postgres:.1}, {} MiB",
                outcome.events,
                outcome.rate(),
                outcome.memory_kib / 1024
            );
        };
        let database = match what {
            "rebuild" => server.database("backlog"),
            _ => {
                let database = backlog::filled(&server, program, webhooks, 1536).await?;
                show("backlog", &backlog::run(&server, program, &database).await?);
                database
            }
        };
        if what != "backlog" {
            show("rebuild", &rebuild::run(&server, program, &database).await?);
        }
        Ok(())
    })
}
