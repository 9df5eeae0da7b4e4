//! The running sandbox: one HTTP server with the three providers' paths and its own.

use std::{future::Future, sync::Arc, time::Duration};

use poem::{
    Endpoint, IntoResponse, Request, Response, Route, Server,
    endpoint::make,
    get,
    listener::{Acceptor, Listener, TcpListener},
    post,
};
use tokio::task::JoinHandle;

use crate::{
    Control, Options, Report, Truth, builderbot,
    clock::Clock,
    control,
    driver::Shared,
    elevenlabs,
    http::{Answer, with_route_errors},
    twilio,
    world::World,
};

/// How long open connections may take to end when the sandbox stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// The largest control.
const CONTROL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why the sandbox did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options contradict themselves.
    #[error("{0}")]
    Options(String),
    /// The address could not be taken, or the server failed.
    #[error("the sandbox's server failed: {0}")]
    Server(#[from] std::io::Error),
    /// The client for the webhooks could not be made.
    #[error("the sandbox's HTTP client failed: {0}")]
    Client(#[from] reqwest::Error),
}

/// A running sandbox. Dropping it leaves it running until the runtime ends; [`Sandbox::stop`] stops it.
pub struct Sandbox {
    shared: Arc<Shared>,
    addr: std::net::SocketAddr,
    server: JoinHandle<Result<(), std::io::Error>>,
    driver: Option<JoinHandle<()>>,
}

impl Sandbox {
    /// Starts a sandbox on its own tasks.
    ///
    /// # Errors
    /// When the options contradict themselves, or the address is taken.
    pub async fn start(options: Options) -> Result<Self, Error> {
        if let Some(problem) = options.problem() {
            return Err(Error::Options(problem));
        }
        let address = format!("{}:{}", options.host, options.port);
        let acceptor = TcpListener::bind(address).into_acceptor().await?;
        let local = acceptor.local_addr();
        let addr = local.iter().find_map(|a| a.as_socket_addr().copied());
        let addr = addr.ok_or_else(|| std::io::Error::other("the listener has no address"))?;
        let clock = Arc::new(if options.manual_clock {
            Clock::manual(options.clock_start_unix)
        } else {
            Clock::scaled(options.speed)
        });
        let manual = options.manual_clock;
        let mut world = World::new(options, clock);
        world.base_url = format!("http://{addr}");
        let shared = Shared::new(world)?;
        let server = tokio::spawn({
            let shared = shared.clone();
            let app = app(&shared);
            async move {
                Server::new_with_acceptor(acceptor)
                    .run_with_graceful_shutdown(
                        app,
                        async move { shared.stopped().await },
                        Some(STOP_TIMEOUT),
                    )
                    .await
            }
        });
        let driver = (!manual).then(|| tokio::spawn(shared.clone().run()));
        tracing::info!(%addr, "the sandbox listens");
        Ok(Self {
            shared,
            addr,
            server,
            driver,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> std::net::SocketAddr {
        self.addr
    }

    /// Its base URL: the value for `ELEVENLABS_BASE_URL`, `TWILIO_BASE_URL` and `BUILDERBOT_API_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What it really did so far.
    pub fn truth(&self) -> Truth {
        self.shared.lock().truth()
    }

    /// Changes the world, and moves it.
    ///
    /// # Errors
    /// A sentence on what is wrong with the control; nothing was done then.
    pub async fn control(&self, control: Control) -> Result<Report, String> {
        control::apply(&self.shared, control).await
    }

    /// Lets everything happen until nothing is left to happen; returns how many things that were.
    pub async fn settle(&self) -> usize {
        self.shared.settle().await
    }

    /// Moves the clock on; all that is due by then happens, in order.
    pub async fn advance(&self, by: Duration) -> usize {
        self.shared.advance(by.as_millis() as u64).await
    }

    /// Sends every pending webhook now, and lets nothing else happen.
    pub async fn fire_webhooks(&self) -> usize {
        self.shared.fire_webhooks().await
    }

    /// Stops it; open requests end, hung ones too.
    pub async fn stop(mut self) {
        self.shared.stop();
        if let Some(driver) = self.driver.take() {
            let _ = driver.await;
        }
        let _ = (&mut self.server).await;
    }
}

/// Runs a sandbox until `shutdown` ends.
///
/// # Errors
/// As [`Sandbox::start`], and when the server fails while it runs.
pub async fn serve(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let mut sandbox = Sandbox::start(options).await?;
    tokio::select! {
        () = shutdown => {}
        ended = &mut sandbox.server => {
            return match ended {
                Ok(result) => Ok(result?),
                Err(panic) => Err(Error::Server(std::io::Error::other(panic))),
            };
        }
    }
    sandbox.stop().await;
    Ok(())
}

fn app(shared: &Arc<Shared>) -> impl Endpoint<Output = Response> + 'static {
    let routes = Route::new()
        .nest("/v1/convai", elevenlabs::routes(shared))
        .nest("/2010-04-01/Accounts", twilio::routes(shared))
        .nest("/api/v2", builderbot::routes(shared))
        .at("/sandbox/truth", get(truth_endpoint(shared.clone())))
        .at("/sandbox/control", post(control_endpoint(shared.clone())));
    with_route_errors(routes)
}

fn truth_endpoint(shared: Arc<Shared>) -> impl Endpoint<Output = Response> + 'static {
    make(move |_: Request| {
        let truth = shared.lock().truth();
        async move {
            let body = serde_json::to_value(truth).unwrap_or_default();
            Ok::<_, poem::Error>(Answer::json(200, &body).into_response())
        }
    })
}

fn control_endpoint(shared: Arc<Shared>) -> impl Endpoint<Output = Response> + 'static {
    make(move |request: Request| {
        let shared = shared.clone();
        async move { Ok::<_, poem::Error>(control_answer(&shared, request).await.into_response()) }
    })
}

async fn control_answer(shared: &Arc<Shared>, request: Request) -> Answer {
    let bad = |error: String| Answer::json(400, &serde_json::json!({"error": error}));
    let body = match request
        .into_body()
        .into_bytes_limit(CONTROL_BYTES_MAX)
        .await
    {
        Ok(body) => body,
        Err(error) => return bad(error.to_string()),
    };
    let control: Control = match serde_json::from_slice(&body) {
        Ok(control) => control,
        Err(error) => return bad(error.to_string()),
    };
    match control::apply(shared, control).await {
        Ok(report) => Answer::json(200, &serde_json::json!(report)),
        Err(error) => bad(error),
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        Answer::into_response(self)
    }
}
