//! Where to listen, as it is typed: `host:port`, `[::1]:port`, `:port`, `unix:///path`.

use std::{fmt, path::PathBuf, str::FromStr};

use thiserror::Error;

/// Mode of a Unix socket's file unless another is named: its owner and its group may connect.
const UNIX_MODE: u32 = 0o660;
/// Longest path of a Unix socket: `sun_path` has 108 bytes, the last of them is zero (unix(7)).
const LONGEST_UNIX_PATH: usize = 107;

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp {
        /// Name or address, without brackets; empty for every address of this host.
        host: String,
        /// Port; 0 for one that the kernel chooses.
        port: u16,
    },
    /// A Unix stream socket.
    Unix {
        /// Absolute path of its file.
        path: PathBuf,
        /// Mode of its file.
        mode: u32,
    },
}

/// Why a text is not a place to listen at.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// No colon outside of brackets.
    #[error("it has no port: write host:port, [::1]:port, :port or unix:///path")]
    NoPort,
    /// Not a number from 0 to 65535.
    #[error("its port is not a number from 0 to 65535")]
    Port,
    /// `::1:80` could be two things.
    #[error("an IPv6 address goes in brackets: [::1]:9752")]
    Brackets,
    /// In brackets, yet no IPv6 address.
    #[error("what is in brackets is not an IPv6 address")]
    Ipv6,
    /// A character that is in no name.
    #[error("its host has a character that no host name has")]
    Host,
    /// `unix://relative`.
    #[error("the path of a Unix socket is absolute: unix:///run/overwatch.sock")]
    RelativePath,
    /// The kernel takes no longer one.
    #[error("the path of a Unix socket has {LONGEST_UNIX_PATH} bytes at most, and no zero byte")]
    UnixPath,
    /// After the path there is only `?mode=`.
    #[error("after the path of a Unix socket comes nothing or ?mode= with an octal mode up to 777")]
    Mode,
    /// `https://` and the like.
    #[error("it has a scheme: write host:port, and set TLS in the file of --web.config.file")]
    Scheme,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix("unix://") {
            return unix(rest);
        }
        if text.contains("://") {
            return Err(AddressError::Scheme);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                // `[::1]` alone ends up here with its last colon inside of the brackets.
                let inner = rest.strip_suffix(']').ok_or(AddressError::NoPort)?;
                // A zone is for the resolver: [fe80::1%eth0].
                let address = inner.split_once('%').map_or(inner, |(address, _)| address);
                address.parse::<std::net::Ipv6Addr>().map_err(|_| AddressError::Ipv6)?;
                inner
            }
            None if host.contains(':') => return Err(AddressError::Brackets),
            None => host,
        };
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::Port);
        }
        let port = port.parse().map_err(|_| AddressError::Port)?;
        let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
        if !host.bytes().all(in_host) {
            return Err(AddressError::Host);
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

fn unix(rest: &str) -> Result<Address, AddressError> {
    let (path, mode) = match rest.split_once('?') {
        None => (rest, UNIX_MODE),
        Some((path, query)) => {
            let digits = query.strip_prefix("mode=").ok_or(AddressError::Mode)?;
            let octal = (3..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| octal && *mode <= 0o777);
            (path, mode.ok_or(AddressError::Mode)?)
        }
    };
    if !path.starts_with('/') {
        return Err(AddressError::RelativePath);
    }
    if path.len() > LONGEST_UNIX_PATH || path.contains('\0') {
        return Err(AddressError::UnixPath);
    }
    Ok(Address::Unix { path: path.into(), mode })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { path, mode: UNIX_MODE } => write!(f, "unix://{}", path.display()),
            Self::Unix { path, mode } => write!(f, "unix://{}?mode={mode:03o}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Result<Address, AddressError> {
        Ok(Address::Tcp { host: host.to_owned(), port })
    }

    fn unix(path: &str, mode: u32) -> Result<Address, AddressError> {
        Ok(Address::Unix { path: path.into(), mode })
    }

    #[test]
    fn an_address_is_what_was_typed() {
        let long = format!("unix:///{}", "x".repeat(107));
        let longest = format!("/{}", "x".repeat(106));
        for (text, expected) in [
            ("127.0.0.1:9752", tcp("127.0.0.1", 9752)),
            (":9752", tcp("", 9752)),
            ("localhost:0", tcp("localhost", 0)),
            ("host-1.example.org:65535", tcp("host-1.example.org", 65535)),
            ("[::]:9752", tcp("::", 9752)),
            ("[::1]:80", tcp("::1", 80)),
            ("[fe80::1%eth0]:80", tcp("fe80::1%eth0", 80)),
            ("unix:///run/overwatch.sock", unix("/run/overwatch.sock", 0o660)),
            ("unix:///run/o w.sock?mode=0600", unix("/run/o w.sock", 0o600)),
            ("unix:///run/o.sock?mode=777", unix("/run/o.sock", 0o777)),
            (&format!("unix://{longest}"), unix(&longest, 0o660)),
            ("", Err(AddressError::NoPort)),
            ("9752", Err(AddressError::NoPort)),
            ("[::1]", Err(AddressError::NoPort)),
            ("[::1:80", Err(AddressError::NoPort)),
            ("::1:80", Err(AddressError::Brackets)),
            ("[127.0.0.1]:80", Err(AddressError::Ipv6)),
            ("[]:80", Err(AddressError::Ipv6)),
            ("localhost:", Err(AddressError::Port)),
            ("localhost:http", Err(AddressError::Port)),
            ("localhost:+80", Err(AddressError::Port)),
            ("localhost:-1", Err(AddressError::Port)),
            ("localhost:65536", Err(AddressError::Port)),
            ("local host:80", Err(AddressError::Host)),
            ("local/host:80", Err(AddressError::Host)),
            ("https://localhost:80", Err(AddressError::Scheme)),
            ("unix://run/o.sock", Err(AddressError::RelativePath)),
            ("unix://", Err(AddressError::RelativePath)),
            ("unix:///run/o\0.sock", Err(AddressError::UnixPath)),
            (&long, Err(AddressError::UnixPath)),
            ("unix:///run/o.sock?mode=", Err(AddressError::Mode)),
            ("unix:///run/o.sock?mode=1777", Err(AddressError::Mode)),
            ("unix:///run/o.sock?mode=68", Err(AddressError::Mode)),
            ("unix:///run/o.sock?mode=+60", Err(AddressError::Mode)),
            ("unix:///run/o.sock?group=www", Err(AddressError::Mode)),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
    }

    #[test]
    fn an_address_is_shown_as_it_is_typed() {
        for text in
            ["127.0.0.1:9752", ":9752", "[::1]:80", "unix:///run/overwatch.sock", "unix:///run/overwatch.sock?mode=060"]
        {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(text.to_owned()));
        }
    }
}
