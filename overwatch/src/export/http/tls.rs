//! TLS by rustls with ring: from settings and files to what a handshake needs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    self, NamedGroup, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{
    files::Files,
    yaml::{self, Fault},
};

/// A bundle of every public CA has half of that.
const MOST_BYTES: u64 = 1024 * 1024;

/// A version of TLS that is still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

/// Where a certificate or a key is, and where in the configuration that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pem {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) source: PemSource,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum PemSource {
    Inline(String),
    File(PathBuf),
}

/// What is inline may be a private key.
impl std::fmt::Debug for PemSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Pem {
    fn fault(&self, what: impl Into<String>) -> Fault {
        Fault::new(self.line, &self.key, what)
    }

    fn read(&self, files: &Files) -> Result<Vec<u8>, Fault> {
        match &self.source {
            PemSource::Inline(text) => Ok(text.as_bytes().to_vec()),
            PemSource::File(path) => {
                files.read(path).map_err(|error| self.fault(format!("cannot read {}: {error}", path.display())))
            }
        }
    }

    fn file(&self) -> Option<(&Path, u64)> {
        match &self.source {
            PemSource::Inline(_) => None,
            PemSource::File(path) => Some((path, MOST_BYTES)),
        }
    }

    fn certificates(&self, files: &Files) -> Result<Vec<CertificateDer<'static>>, Fault> {
        let bytes = self.read(files)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match found {
            Ok(certificates) if certificates.is_empty() => Err(self.fault("there is no PEM certificate in it")),
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(self.fault(format!("it is not PEM: {error}"))),
        }
    }
}

/// Who must have a certificate, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientAuth {
    /// Else a client may have none.
    pub(super) required: bool,
    pub(super) ca: Pem,
}

/// The section `tls_server_config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TlsSettings {
    pub(super) certificate: Pem,
    pub(super) key: Pem,
    pub(super) client_auth: Option<ClientAuth>,
    pub(super) protocol: Protocol,
}

/// What is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) oldest: Version,
    pub(super) newest: Version,
    /// Names of cipher suites of TLS 1.2 with their lines; all that are good when there are none.
    pub(super) cipher_suites: Vec<(String, usize)>,
    pub(super) prefer_server_order: bool,
    /// Names of curves with their lines; all that are good when there are none.
    pub(super) curves: Vec<(String, usize)>,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            oldest: Version::Tls12,
            newest: Version::Tls13,
            cipher_suites: Vec::new(),
            prefer_server_order: true,
            curves: Vec::new(),
        }
    }
}

/// Curves by the names that the format has for them.
const CURVES: [(&str, NamedGroup); 3] =
    [("X25519", NamedGroup::X25519), ("CurveP256", NamedGroup::secp256r1), ("CurveP384", NamedGroup::secp384r1)];

impl TlsSettings {
    /// The files that it names, with the most bytes that each may have.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        let ca = self.client_auth.as_ref().map(|auth| &auth.ca);
        [Some(&self.certificate), Some(&self.key), ca].into_iter().flatten().filter_map(Pem::file)
    }

    /// What a handshake needs.
    pub(super) fn server_config(&self, files: &Files) -> Result<ServerConfig, Fault> {
        let provider = Arc::new(self.protocol.provider()?);
        let versions: Vec<_> = [(Version::Tls12, &TLS12), (Version::Tls13, &TLS13)]
            .into_iter()
            .filter(|(version, _)| (self.protocol.oldest..=self.protocol.newest).contains(version))
            .map(|(_, version)| version)
            .collect();
        let unusable = |error: rustls::Error| self.certificate.fault(error.to_string());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&versions).map_err(unusable)?;
        let builder = match &self.client_auth {
            None => builder.with_no_client_auth(),
            Some(auth) => builder.with_client_cert_verifier(auth.verifier(provider, files)?),
        };
        let chain = self.certificate.certificates(files)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key.read(files)?)
            .map_err(|_| self.key.fault("there is no PEM private key in it that is not encrypted"))?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => self.key.fault("it is not the key of the certificate"),
            error => self.certificate.fault(format!("certificate and key cannot be used: {error}")),
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ignore_client_order = self.protocol.prefer_server_order;
        Ok(config)
    }
}

impl Protocol {
    /// What ring can do, less what is not wanted.
    fn provider(&self) -> Result<CryptoProvider, Fault> {
        let mut provider = ring::default_provider();
        if !self.cipher_suites.is_empty() {
            let all = std::mem::take(&mut provider.cipher_suites);
            let name = |suite: &rustls::SupportedCipherSuite| suite.suite().as_str().unwrap_or_default().to_owned();
            // The list is for TLS 1.2; the suites of 1.3 are all good, and cannot be chosen in Go either.
            let (new, old): (Vec<_>, Vec<_>) = all.into_iter().partition(|suite| suite.tls13().is_some());
            provider.cipher_suites.extend(new);
            for (wanted, line) in &self.cipher_suites {
                let Some(suite) = old.iter().find(|suite| name(suite) == *wanted) else {
                    let known: Vec<_> = old.iter().map(name).collect();
                    let what = format!("'{}' is not supported; there are: {}", yaml::shown(wanted), known.join(", "));
                    return Err(Fault::new(*line, "tls_server_config.cipher_suites", what));
                };
                provider.cipher_suites.push(*suite);
            }
        }
        if !self.curves.is_empty() {
            let all = std::mem::take(&mut provider.kx_groups);
            for (wanted, line) in &self.curves {
                let group = CURVES.iter().find(|(name, _)| name == wanted).map(|(_, group)| *group);
                let found = all.iter().find(|known| Some(known.name()) == group);
                let Some(found) = found else {
                    let known = CURVES.map(|(name, _)| name).join(", ");
                    let what = format!("'{}' is not supported; there are: {known}", yaml::shown(wanted));
                    return Err(Fault::new(*line, "tls_server_config.curve_preferences", what));
                };
                provider.kx_groups.push(*found);
            }
        }
        Ok(provider)
    }
}

impl ClientAuth {
    fn verifier(&self, provider: Arc<CryptoProvider>, files: &Files) -> Result<Arc<dyn ClientCertVerifier>, Fault> {
        let mut roots = RootCertStore::empty();
        for certificate in self.ca.certificates(files)? {
            roots
                .add(certificate)
                .map_err(|error| self.ca.fault(format!("it has a certificate that is none: {error}")))?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        if !self.required {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|error| self.ca.fault(error.to_string()))
    }
}
