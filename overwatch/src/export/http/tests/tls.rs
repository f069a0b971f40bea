use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, SupportedProtocolVersion,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
        version::{TLS12, TLS13},
    },
};

use super::*;

/// A CA of the test's own.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Both in PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn identity(&self) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// What a client has and takes.
struct Client<'a> {
    trusts: &'a Authority,
    identity: Option<&'a Identity>,
    versions: &'a [&'static SupportedProtocolVersion],
}

impl Client<'_> {
    async fn connect(&self, running: &Running) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusts.issuer.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(self.versions).unwrap().with_root_certificates(roots);
        let config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, running.connect().await).await
    }

    /// `None` when there is no TLS with this client; in TLS 1.3 it learns of it only when it reads.
    async fn scrape(&self, running: &Running) -> Option<Reply> {
        let stream = self.connect(running).await.ok()?;
        let answer = exchange(stream, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        (!answer.is_empty()).then(|| Reply::parse(&answer))
    }
}

const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

const CONFIG: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

/// Starts with the files in place; `more` are further lines of the section.
async fn start(identity: &Identity, ca: &Authority, more: &str, limits: Limits) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    write(&path("server.crt"), &identity.certificate);
    write(&path("server.key"), &identity.key);
    write(&path("ca.crt"), ca.issuer.pem());
    write(&path("web.yml"), format!("{CONFIG}{more}"));
    let (server, asks) = Server::new(limited(limits), Some(&path("web.yml")), &Files::of(&path("web.yml"))).unwrap();
    tokio::spawn(always(asks, METRICS.to_owned()));
    Running::with(server, directory).await
}

#[tokio::test]
async fn a_client_that_trusts_the_certificate_is_served() {
    within(async {
        let (ca, other) = (Authority::new(), Authority::new());
        let running = start(&ca.identity(), &ca, "", patient()).await;
        for versions in [&[&TLS12][..], &[&TLS13], BOTH] {
            let reply = Client { trusts: &ca, identity: None, versions }.scrape(&running).await.unwrap();
            assert_eq!(reply.text(), METRICS);
        }
        assert_eq!(running.server.counters().failed_handshakes.load(Relaxed), 0);
        assert_eq!(Client { trusts: &other, identity: None, versions: BOTH }.scrape(&running).await, None);
        // Plain text, and nonsense: no metrics, and no harm.
        for bytes in
            ["GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".as_bytes(), &[0x16, 3, 1, 0xff, 0xff, 0], &[0xff; 5000]]
        {
            let answer = running.send(bytes).await;
            assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
        }
        until(|| running.open() == 0).await;
        assert_eq!(running.server.counters().failed_handshakes.load(Relaxed), 4);
        assert_eq!(running.requests(Handler::Metrics, 200), 3);
    })
    .await;
}

#[tokio::test]
async fn a_version_that_is_too_old_is_refused() {
    within(async {
        let ca = Authority::new();
        let more = "  min_version: TLS13\n  curve_preferences: [CurveP256]\n";
        let running = start(&ca.identity(), &ca, more, patient()).await;
        assert_eq!(Client { trusts: &ca, identity: None, versions: &[&TLS12] }.scrape(&running).await, None);
        let client = Client { trusts: &ca, identity: None, versions: &[&TLS13] };
        assert_eq!(client.scrape(&running).await.unwrap().code, 200);
        let stream = client.connect(&running).await.unwrap();
        let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
        assert_eq!(format!("{:?}", group.name()), "secp256r1");
        let more = "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n";
        let running = start(&ca.identity(), &ca, more, patient()).await;
        let stream = Client { trusts: &ca, identity: None, versions: BOTH }.connect(&running).await.unwrap();
        let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
        assert_eq!(suite.suite().as_str(), Some("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"));
    })
    .await;
}

#[tokio::test]
async fn a_client_certificate_lets_in() {
    within(async {
        let (ca, other) = (Authority::new(), Authority::new());
        let (server, good, bad) = (ca.identity(), ca.identity(), other.identity());
        for (kind, without) in [("RequireAndVerifyClientCert", false), ("VerifyClientCertIfGiven", true)] {
            let more = format!("  client_ca_file: ca.crt\n  client_auth_type: {kind}\n");
            let running = start(&server, &ca, &more, patient()).await;
            for versions in [&[&TLS12][..], &[&TLS13]] {
                for (identity, expected) in [(None, without), (Some(&good), true), (Some(&bad), false)] {
                    let reply = Client { trusts: &ca, identity, versions }.scrape(&running).await;
                    assert_eq!(reply.is_some_and(|reply| reply.text() == METRICS), expected, "{kind}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_handshake_has_its_time() {
    within(async {
        let ca = Authority::new();
        let limits = Limits { handshake: Duration::from_millis(200), ..patient() };
        let running = start(&ca.identity(), &ca, "", limits).await;
        assert_eq!(running.send("").await, b"");
        assert_eq!(running.send([0x16, 3, 1]).await, b"");
        assert_eq!((running.timeouts(Phase::Handshake), running.timeouts(Phase::Header)), (2, 0));
    })
    .await;
}

#[tokio::test]
async fn a_reload_changes_the_certificate() {
    within(async {
        let (ca, next) = (Authority::new(), Authority::new());
        let running = start(&ca.identity(), &ca, "", patient()).await;
        let is_served = async |trusts: &Authority| {
            Client { trusts, identity: None, versions: BOTH }.scrape(&running).await.is_some()
        };
        let identity = next.identity();
        // A certificate without its key: all stays as it was.
        write(&running.file("server.crt"), &identity.certificate);
        let error = running.server.reread().unwrap_err().to_string();
        assert!(
            error.ends_with("web.yml, line 3, tls_server_config.key_file: it is not the key of the certificate"),
            "{error}"
        );
        assert!(is_served(&ca).await);
        write(&running.file("server.key"), &identity.key);
        running.server.reread().unwrap();
        assert!(is_served(&next).await && !is_served(&ca).await);
    })
    .await;
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    let ca = Authority::new();
    let identity = ca.identity();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    write(&path("empty"), "");
    write(&path("server.crt"), &identity.certificate);
    write(&path("server.key"), &identity.key);
    write(&path("other.key"), &ca.identity().key);
    write(&path("broken.crt"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    write(&path("large"), vec![b'a'; 1024 * 1024 + 1]);
    for (config, expected) in [
        ("{cert_file: server.crt, key_file: server.key}", None),
        ("{cert_file: none.crt, key_file: server.key}", Some("cert_file: cannot read ")),
        ("{cert_file: large, key_file: server.key}", Some("cert_file: cannot read ")),
        ("{cert_file: empty, key_file: server.key}", Some("cert_file: there is no PEM certificate in it")),
        ("{cert_file: server.key, key_file: server.key}", Some("cert_file: there is no PEM certificate in it")),
        ("{cert_file: broken.crt, key_file: server.key}", Some("cert_file: certificate and key cannot be used: ")),
        ("{cert_file: server.crt, key_file: empty}", Some("key_file: there is no PEM private key in it")),
        ("{cert_file: server.crt, key_file: server.crt}", Some("key_file: there is no PEM private key in it")),
        ("{cert_file: server.crt, key_file: other.key}", Some("key_file: it is not the key of the certificate")),
        ("{cert: secret, key_file: server.key}", Some("cert: there is no PEM certificate in it")),
        (
            "{cert_file: server.crt, key_file: server.key, client_auth_type: RequireAndVerifyClientCert, client_ca: x}",
            Some("client_ca: there is no PEM certificate in it"),
        ),
        (
            "{cert_file: server.crt, key_file: server.key, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}",
            Some("cipher_suites: 'TLS_RSA_WITH_RC4_128_SHA' is not supported; there are: TLS_ECDHE_"),
        ),
        (
            "{cert_file: server.crt, key_file: server.key, curve_preferences: [CurveP521]}",
            Some("curve_preferences: 'CurveP521' is not supported; there are: X25519, CurveP256, CurveP384"),
        ),
    ] {
        let file = path("web.yml");
        write(&file, format!("tls_server_config: {config}\n"));
        let error = check_config(&file).err().map(|error| error.to_string());
        let prefix = expected.map(|what| format!("{}, line 1, tls_server_config.{what}", file.display()));
        assert_eq!(error.is_some(), prefix.is_some(), "{config}: {error:?}");
        assert!(error.unwrap_or_default().starts_with(&prefix.unwrap_or_default()), "{config}");
    }
}
