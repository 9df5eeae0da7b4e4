//! `GET /api/interactions` against pgbench that runs its SQL.

use anyhow::bail;
use bytes::Bytes;

use crate::floor;
use crate::ingest;
use crate::load::Pace;
use crate::median::median;
use crate::process::Service;
use crate::server::{Server, TOKEN};

/// Connections, and clients of pgbench.
const CONNECTIONS: usize = 16;

/// Filters that are measured: as they stand in the address.
pub const FILTERS: [&str; 3] = [
    "limit=50",
    "limit=50&channel=call&status=completed",
    "limit=50&agent_id=agent_bench07&direction=outbound",
];

/// Medians over the rounds.
#[derive(Debug)]
pub struct Measured {
    /// Lists a second.
    pub rate: f64,
    /// Those, over pgbench in the same round.
    pub over_floor: f64,
    /// The SQL of the list, a second, by pgbench.
    pub floor: f64,
}

/// Rounds of both in turn.
///
/// # Errors
/// When a list is not answered 200.
pub async fn measure(
    server: &Server,
    service: &Service,
    database: &str,
    filter: &str,
    rounds: usize,
    seconds: u64,
) -> anyhow::Result<Measured> {
    let request = Bytes::from(format!(
        "GET /api/interactions?{filter} HTTP/1.1\r\nhost: localhost\r\nx-service-token: {TOKEN}\r\n\r\n"
    ));
    let asking = ask(service, &request, 500);
    let (sql, asked) = tokio::join!(sql_of(server, database, filter), asking);
    let (sql, _) = (sql?, asked?);
    let (script, variables) = script(&sql, filter);
    let (mut ours, mut floors) = (vec![], vec![]);
    // As many as fill the time.
    let count = (ask(service, &request, 2_000).await? * seconds as f64) as usize;
    for _ in 0..rounds {
        floors.push(floor::pgbench(
            server,
            database,
            &script,
            &variables,
            CONNECTIONS as u32,
            seconds,
        )?);
        ours.push(ask(service, &request, count.max(200)).await?);
    }
    let over: Vec<f64> = ours.iter().zip(&floors).map(|(a, b)| a / b).collect();
    Ok(Measured {
        over_floor: median(&over),
        rate: median(&ours),
        floor: median(&floors),
    })
}

async fn ask(service: &Service, request: &Bytes, count: usize) -> anyhow::Result<f64> {
    let requests = vec![request.clone(); count];
    let outcome = ingest::run(service.address, requests, CONNECTIONS, Pace::Closed).await?;
    if outcome.accepted() != count {
        bail!("a list was answered {:?}", outcome.statuses);
    }
    Ok(outcome.rate())
}

/// What the service sends that reads the list, while it does.
async fn sql_of(server: &Server, database: &str, filter: &str) -> anyhow::Result<String> {
    let with_filters: String = filters(filter)
        .map(|(name, _)| format!(" and query like '%and {name} = %'"))
        .collect();
    let last = format!(
        "select query from pg_stat_activity where datname = '{database}'
           and query like 'select id, channel%from interactions where true%'{with_filters}
         limit 1"
    );
    for _ in 0..1000 {
        if let Ok(sql) = server.ask("postgres", &last).await {
            return Ok(sql);
        }
    }
    bail!("nobody read the list")
}

/// What an address filters by.
fn filters(filter: &str) -> impl Iterator<Item = (&str, &str)> {
    filter
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| *name != "limit")
}

/// The statement for pgbench: `$1` becomes `:p1`, with the values of the filter
/// in the order in which the statement has its columns. What stands in the
/// statement itself stays there.
fn script(sql: &str, filter: &str) -> (String, Vec<(&'static str, String)>) {
    const NAMES: [&str; 4] = ["p1", "p2", "p3", "p4"];
    let mut bound: Vec<(usize, &str)> = filters(filter)
        .filter_map(|(name, value)| Some((sql.find(&format!(" and {name} = $"))?, value)))
        .collect();
    bound.sort_unstable();
    let mut script = sql.replace('\n', " ");
    let mut variables = vec![];
    for (n, (_, value)) in bound.into_iter().enumerate() {
        script = script.replace(&format!("${}", n + 1), &format!(":{}", NAMES[n]));
        variables.push((NAMES[n], value.to_owned()));
    }
    (format!("{script};\n"), variables)
}
