//! `GET /api/interactions` against pgbench that runs its SQL.

use anyhow::{Context, bail};
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
    let (sql, asked) = tokio::join!(sql_of(server, database), asking);
    let (sql, _) = (sql?, asked?);
    let (script, variables) = script(&sql, filter)?;
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
    Ok(Measured {
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
async fn sql_of(server: &Server, database: &str) -> anyhow::Result<String> {
    let last = format!(
        "select query from pg_stat_activity where datname = '{database}'
           and query like 'select id, channel%from interactions where true%'
         limit 1"
    );
    for _ in 0..1000 {
        if let Ok(sql) = server.ask("postgres", &last).await {
            return Ok(sql);
        }
    }
    bail!("nobody read the list")
}

/// The statement for pgbench: `$1` becomes `:p1`, with the values of the filter
/// in the order in which the statement has its columns.
fn script(sql: &str, filter: &str) -> anyhow::Result<(String, Vec<(&'static str, String)>)> {
    const NAMES: [&str; 4] = ["p1", "p2", "p3", "p4"];
    let mut given: Vec<(usize, &str)> = filter
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| {
            let at = match name {
                "limit" => sql.find(" limit "),
                name => sql.find(&format!(" and {name} = ")),
            };
            Ok((at.context("the statement has no such filter")?, value))
        })
        .collect::<anyhow::Result<_>>()?;
    given.sort_unstable();
    let mut script = sql.replace('\n', " ");
    let mut variables = vec![];
    for (n, (_, value)) in given.into_iter().enumerate().rev() {
        script = script.replace(&format!("${}", n + 1), &format!(":{}", NAMES[n]));
        // The service asks for one row more, to know whether there is a next page.
        let value = match value {
            "50" => "51".to_owned(),
            value => value.to_owned(),
        };
        variables.push((NAMES[n], value));
    }
    Ok((format!("{script};\n"), variables))
}
