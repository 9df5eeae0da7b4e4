//! One request at a time, as an admin, where the answer itself is wanted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;

use crate::server::TOKEN;

/// Of a long answer so much of its end is kept.
const END_BYTES: usize = 64 << 10;

/// What was answered.
pub struct Answer {
    pub status: u16,
    /// How long it was.
    pub bytes: u64,
    /// Its end; of a short one, all of it.
    pub end: String,
}

/// Asks, and reads the answer to its end.
///
/// # Errors
/// When the connection breaks.
pub async fn ask(
    address: SocketAddr,
    method: &'static str,
    path: String,
    body: String,
) -> anyhow::Result<Answer> {
    tokio::task::spawn_blocking(move || ask_now(address, method, &path, &body)).await?
}

/// The answer to a GET, which must be 200.
///
/// # Errors
/// When it is not.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let answer = ask(address, "GET", path.to_owned(), String::new()).await?;
    ensure!(
        answer.status == 200,
        "{path}: {} {}",
        answer.status,
        answer.end
    );
    Ok(answer)
}

fn ask_now(address: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        token(),
        body.len()
    )?;
    let mut stream = BufReader::with_capacity(1 << 20, stream);
    let (mut line, mut is_chunked) = (String::new(), false);
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).context("no status")?.parse()?;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let header = line.trim().to_lowercase();
        is_chunked |= header == "transfer-encoding: chunked";
        if header.is_empty() {
            break;
        }
    }
    let mut answer = Answer {
        status,
        bytes: 0,
        end: String::new(),
    };
    let mut end = vec![];
    match is_chunked {
        true => while chunk(&mut stream, &mut answer.bytes, &mut end)? {},
        false => {
            stream.read_to_end(&mut end)?;
            answer.bytes = end.len() as u64;
        }
    }
    answer.end = String::from_utf8_lossy(&end).into_owned();
    Ok(answer)
}

/// Reads a chunk; `false` for the last, which is empty.
fn chunk(stream: &mut impl BufRead, bytes: &mut u64, end: &mut Vec<u8>) -> anyhow::Result<bool> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        bail!("the answer was cut short");
    }
    let length = u64::from_str_radix(line.trim(), 16)?;
    *bytes += length;
    if end.len() > END_BYTES {
        end.drain(..end.len() - END_BYTES);
    }
    stream.take(length + 2).read_to_end(end)?;
    end.truncate(end.len().saturating_sub(2));
    Ok(length > 0)
}

/// A login of an admin, good for an hour.
fn token() -> String {
    let at = chrono::Utc::now().timestamp();
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(json!({"alg": "HS256", "typ": "JWT"}));
    let claims = part(json!({"sub": "1", "role": "admin", "iat": at, "exp": at + 3600}));
    let signed = format!("{head}.{claims}");
    let mut mac = Hmac::<Sha256>::new_from_slice(TOKEN.as_bytes()).expect("any length is a key");
    mac.update(signed.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{signed}.{signature}")
}
