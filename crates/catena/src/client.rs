//! Asking the controller: over its unix socket, or the same questions to the same router in this very process.

use std::io::ErrorKind;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use catena_api::types::ErrorReport;
use catena_control::Mode;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tower::ServiceExt;

use crate::arguments::Connection;
use crate::drivers;
use crate::error::CliError;
use crate::lab_environment;

pub struct Client {
    transport: Transport,
}

enum Transport {
    Socket(hyper::client::conn::http1::SendRequest<Body>),
    InProcess(Router),
}

impl Client {
    /// The daemon; or this process if it was asked to do without, or stands in a lab where no daemon runs. Then `mode`
    /// says what this process may do.
    pub async fn connect(connection: &Connection, mode: Mode) -> Result<Self, CliError> {
        drivers::once_free(async || {
            if !connection.local {
                match Self::daemon(connection).await {
                    Err(CliError::NoDaemon(_)) if lab_environment::is_inside() => {}
                    connected => return connected,
                }
            }
            let router = drivers::router(&connection.state, mode).await?;
            Ok(Self { transport: Transport::InProcess(router) })
        })
        .await
    }

    async fn daemon(connection: &Connection) -> Result<Self, CliError> {
        let stream = UnixStream::connect(&connection.socket).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                CliError::NoDaemon(connection.socket.clone())
            }
            ErrorKind::PermissionDenied => CliError::NotAllowed(connection.socket.clone()),
            _ => CliError::Connection(error.into()),
        })?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, driven) = handshake.map_err(|error| CliError::Connection(error.into()))?;
        // Its errors come out of the requests too.
        tokio::spawn(driven);
        Ok(Self { transport: Transport::Socket(sender) })
    }

    pub async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, CliError> {
        let response = self.send(Method::GET, path, Body::empty()).await?;
        read(response).await
    }

    pub async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        question: &impl Serialize,
    ) -> Result<T, CliError> {
        let body = serde_json::to_vec(question).map_err(CliError::unprintable)?;
        let response = self.send(Method::POST, path, Body::from(body)).await?;
        read(response).await
    }

    /// An answer of one JSON value a line, read as it comes.
    pub async fn lines(&mut self, path: &str) -> Result<Lines, CliError> {
        let response = self.send(Method::GET, path, Body::empty()).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await?);
        }
        Ok(Lines { body: response.into_body(), rest: Vec::new() })
    }

    async fn send(&mut self, method: Method, path: &str, body: Body) -> Result<Response<Body>, CliError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1alpha1/{path}"))
            .header(header::HOST, "catena")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| CliError::Connection(error.into()))?;
        match &mut self.transport {
            Transport::Socket(sender) => {
                // The answer to the question before may not have been read to its end by the connection.
                sender.ready().await.map_err(|error| CliError::Connection(error.into()))?;
                let response = sender.send_request(request).await;
                Ok(response.map_err(|error| CliError::Connection(error.into()))?.map(Body::new))
            }
            Transport::InProcess(router) => match router.clone().oneshot(request).await {
                Ok(response) => Ok(response),
                Err(never) => match never {},
            },
        }
    }
}

/// A part of a path, with what has a meaning there written as RFC 3986 says (section 2.1).
pub fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

async fn read<T: DeserializeOwned>(response: Response<Body>) -> Result<T, CliError> {
    if !response.status().is_success() {
        return Err(refusal(response).await?);
    }
    let bytes = bytes(response).await?;
    serde_json::from_slice(&bytes).map_err(|error| CliError::Answer(error.into()))
}

async fn refusal(response: Response<Body>) -> Result<CliError, CliError> {
    let status: StatusCode = response.status();
    let bytes = bytes(response).await?;
    Ok(match serde_json::from_slice::<ErrorReport>(&bytes) {
        Ok(report) => CliError::Refused(report),
        Err(_) => CliError::Answer(format!("{status}: {}", String::from_utf8_lossy(&bytes)).into()),
    })
}

async fn bytes(response: Response<Body>) -> Result<Bytes, CliError> {
    let collected = response.into_body().collect().await;
    Ok(collected.map_err(|error| CliError::Connection(error.into()))?.to_bytes())
}

/// A body of lines.
pub struct Lines {
    body: Body,
    /// What has come of the next line.
    rest: Vec<u8>,
}

impl Lines {
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CliError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let value = serde_json::from_slice(&line).map_err(|error| CliError::Answer(error.into()))?;
                return Ok(Some(value));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    let frame = frame.map_err(|error| CliError::Connection(error.into()))?;
                    self.rest.extend(frame.into_data().unwrap_or_default());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_types_is_one_segment() {
        assert_eq!(segment("acme-web"), "acme-web");
        assert_eq!(segment("a/b ü"), "a%2Fb%20%C3%BC");
    }

    #[tokio::test]
    async fn lines_are_found_wherever_the_frames_are_cut() {
        let frames =
            ["{\"a\"", ":1}\n{\"a\":2}", "\n"].map(|part| Ok::<_, std::io::Error>(Bytes::from(part)));
        let mut lines = Lines { body: Body::from_stream(tokio_stream::iter(frames)), rest: Vec::new() };
        let mut found = Vec::new();
        while let Some(value) = lines.next::<serde_json::Value>().await.unwrap() {
            found.push(value["a"].as_u64().unwrap());
        }
        assert_eq!(found, [1, 2]);
    }

    #[tokio::test]
    async fn an_answer_that_is_not_ours_is_said_to_be_so() {
        let response = Response::builder().status(502).body(Body::from("<html>")).unwrap();
        let error = read::<serde_json::Value>(response).await.unwrap_err();
        assert!(error.shown().contains("502"), "{}", error.shown());
    }
}
