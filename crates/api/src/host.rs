//! Whom the API is served to over TCP: those who asked for this machine, not for a name that leads here by deceit.
//!
//! A page of any web site can have a browser ask a server on the loopback address, as the same origin, once the site's
//! name resolves to that address (DNS rebinding). The browser then sends the site's name as `Host`, and cannot be made to
//! send another.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;

/// The names that the API may be asked for, in lower case. Addresses may always be: no name was resolved then.
#[derive(Clone, Debug)]
pub struct OwnNames(Arc<BTreeSet<String>>);

impl OwnNames {
    /// `localhost`, what the machine calls itself, and `others`.
    pub fn and(others: impl IntoIterator<Item = String>) -> Self {
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let own = ["localhost".to_owned()].into_iter().chain(machine);
        let names = own.chain(others).map(|name| name.trim().trim_end_matches('.').to_ascii_lowercase());
        Self(Arc::new(names.filter(|name| !name.is_empty()).collect()))
    }

    /// Of a host with or without a port (RFC 3986 section 3.2).
    fn allow(&self, authority: &str) -> bool {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match inside {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None if host.parse::<IpAddr>().is_ok() => true,
            None => self.0.contains(&host.trim_end_matches('.').to_ascii_lowercase()),
        }
    }
}

/// Answers requests for other hosts with 403. Where the request's line names one, the header does not count
/// (RFC 9112 section 3.2.2).
pub async fn refuse_foreign(State(names): State<OwnNames>, request: Request, next: Next) -> Response {
    let line = request.uri().authority().map(|authority| authority.as_str());
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = line.or(header).unwrap_or_default();
    if names.allow(host) {
        next.run(request).await
    } else {
        ApiError::ForeignHost(host.to_owned()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_own_names_are_allowed() {
        let names = OwnNames::and(["Catena.example".to_owned()]);
        for host in [
            "127.0.0.1",
            "127.0.0.1:8642",
            "[::1]",
            "[::1]:8642",
            "localhost",
            "LOCALHOST:80",
            "localhost.",
            "catena.example:8642",
        ] {
            assert!(names.allow(host), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "evil.example:8642",
            "127.0.0.1.evil.example",
            "[evil]",
            "localhost:x",
        ] {
            assert!(!names.allow(host), "{host}");
        }
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert!(names.allow(machine.trim()));
    }
}
