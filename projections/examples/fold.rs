//! Scratch.
#![allow(clippy::unwrap_used)]
extern crate bitacora_projections as projections;
use projections::{Engine, Progress};
use sqlx::postgres::PgPoolOptions;
#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).unwrap();
    let what = std::env::args().nth(2).unwrap();
    let pool = PgPoolOptions::new()
        .max_connections(20)
        .connect(&url)
        .await
        .unwrap();
    let key: Vec<u8> = sqlx::query_scalar("select phone_index_key from instance")
        .fetch_one(&pool)
        .await
        .unwrap();
    let phones = domain::PhoneIndex::new(&key);
    sqlx::migrate!("../migrations").run(&pool).await.unwrap();
    let engine = Engine::new(pool.clone(), projections::all(&phones));
    let n: i64 = sqlx::query_scalar("select count(*) from events")
        .fetch_one(&pool)
        .await
        .unwrap();
    let began = std::time::Instant::now();
    if what == "rebuild" {
        let names: Vec<_> = engine.names().collect();
        let report = |p: projections::engine::RebuildProgress| {
            if p.position == p.head {
                println!("caught up {:?}", began.elapsed());
            }
        };
        for r in engine.rebuild_all(&names, report).await.unwrap() {
            println!("{r:?}");
        }
    } else {
        loop {
            let turns = engine.run_all(engine.names()).await;
            if !turns
                .iter()
                .any(|(_, p)| matches!(p, Ok(Progress::Worked { .. })))
            {
                break;
            }
        }
    }
    let e = began.elapsed().as_secs_f64();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let cpu: f64 = f[11..13]
        .iter()
        .map(|t| t.parse::<f64>().unwrap())
        .sum::<f64>()
        * 0.01;
    println!(
        "{what}: {n} events {:.0}/s own cpu {:.1} us",
        n as f64 / e,
        cpu * 1e6 / n as f64
    );
}
