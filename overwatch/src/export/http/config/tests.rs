use super::*;
use crate::{export::http::users::tests::hash, random::Random};

fn parse(text: &str) -> Result<WebConfig, String> {
    WebConfig::parse(text, Path::new("/etc/overwatch"))
        .map_err(|fault| ConfigError::new(Path::new("web.yml"), &fault).to_string())
}

fn file(line: usize, key: &str, path: &str) -> Pem {
    Pem { line, key: format!("tls_server_config.{key}"), source: PemSource::File(path.into()) }
}

#[test]
fn all_that_is_supported_is_read() {
    let text = format!(
        "# Comment\n\
         tls_server_config:\n  cert_file: server.crt\n  key_file: \"/keys/server.key\"\n\
         \x20 client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n\
         \x20 min_version: TLS13\n  max_version: 'TLS13'\n  prefer_server_cipher_suites: false\n\
         \x20 cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n  curve_preferences:\n    - X25519\n    - CurveP256\n\
         http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n\
         \x20   Strict-Transport-Security: max-age=31536000; includeSubDomains\n    X-XSS-Protection: ''\n\
         basic_auth_users:\n  alice: {}\n  'bob b': {}\n",
        hash("a"),
        hash("b")
    );
    let config = parse(&text).unwrap();
    assert_eq!(
        config.tls,
        Some(TlsSettings {
            certificate: file(3, "cert_file", "/etc/overwatch/server.crt"),
            key: file(4, "key_file", "/keys/server.key"),
            client_auth: Some(ClientAuth { required: true, ca: file(6, "client_ca_file", "/etc/overwatch/ca.crt") }),
            protocol: Protocol {
                oldest: Version::Tls13,
                newest: Version::Tls13,
                cipher_suites: vec![("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".to_owned(), 10)],
                prefer_server_order: false,
                curves: vec![("X25519".to_owned(), 12), ("CurveP256".to_owned(), 13)],
            },
        })
    );
    let headers: Vec<_> = config.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    let hsts = ("strict-transport-security", "max-age=31536000; includeSubDomains");
    assert_eq!(headers, [("x-frame-options", "deny"), hsts]);
    assert_eq!(config.users.unwrap().costs(), [("alice".to_owned(), 4), ("bob b".to_owned(), 4)]);
}

#[test]
fn what_is_left_out_is_as_it_is_by_default() {
    for text in [
        "",
        "\n# nothing\n",
        "---\n",
        "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\n",
        "tls_server_config: {}\nhttp_server_config: {headers: {}}\nbasic_auth_users: ~\n",
        "http_server_config:\n  http2:\n",
    ] {
        let config = parse(text).unwrap();
        assert_eq!((config.tls.is_none(), config.headers.len(), config.users.is_none()), (true, 0, true), "{text}");
    }
    let tls =
        parse("tls_server_config: {cert: a, key: b, client_ca:, client_auth_type: NoClientCert}").unwrap().tls.unwrap();
    assert_eq!((tls.client_auth, tls.protocol), (None, Protocol::default()));
    assert_eq!(
        (tls.certificate.source, tls.key.source),
        (PemSource::Inline("a".into()), PemSource::Inline("b".into()))
    );
    let weak = "tls_server_config: {cert: a, key: b, client_ca: c, client_auth_type: VerifyClientCertIfGiven}";
    assert!(!parse(weak).unwrap().tls.unwrap().client_auth.unwrap().required);
}

#[test]
fn what_is_wrong_is_named() {
    const TLS: &str = "tls_server_config:\n  cert_file: a\n  key_file: b\n";
    let tls = |line: &str| format!("{TLS}  {line}\n");
    let good = hash("a");
    for (text, expected) in [
        ("[".to_owned(), "web.yml, line 1: not YAML: "),
        ("a:\n\tb: c\n".to_owned(), "web.yml, line 2: not YAML: "),
        ("text".to_owned(), "web.yml, line 1: keys with values are wanted here"),
        ("- a\n".to_owned(), "web.yml, line 1: keys with values are wanted here"),
        ("a: 1\n---\nb: 2\n".to_owned(), "web.yml, line 3: there is a second document"),
        ("x: &a b\ny: *a\n".to_owned(), "web.yml, line 2: aliases are not supported"),
        ("basic_auth_users: !!map {}\n".to_owned(), "web.yml, line 1: tags are not supported"),
        ("[[[[[[[[[[[[]]]]]]]]]]]]".to_owned(), "web.yml, line 1: it is nested too deep"),
        ("? [a]\n: b\n".to_owned(), "web.yml, line 1: a key is not a plain text"),
        // What is missing at the end is missing in the last line.
        ("? ".to_owned(), "web.yml, line 1: there is no such key; there are: "),
        (format!("{TLS}{TLS}"), "web.yml, line 4, tls_server_config: it is there twice, first in line 1"),
        (
            "tls_config:\n".to_owned(),
            "web.yml, line 1, tls_config: there is no such key; there are: tls_server_config, ",
        ),
        ("rate_limit:\n  burst: 2\n".to_owned(), "web.yml, line 1, rate_limit: rate limits are not supported"),
        ("tls_server_config: on\n".to_owned(), "web.yml, line 1, tls_server_config: keys with values are wanted here"),
        (
            "tls_server_config:\n  key_file: b\n".to_owned(),
            "web.yml, line 2, tls_server_config: it has neither cert_file",
        ),
        (
            "tls_server_config:\n  cert_file: b\n".to_owned(),
            "web.yml, line 2, tls_server_config: it has neither key_file",
        ),
        (
            "tls_server_config: {min_version: TLS13}\n".to_owned(),
            "web.yml, line 1, tls_server_config: it has neither cert",
        ),
        (
            tls("cert: x"),
            "web.yml, line 4, tls_server_config.cert: there is tls_server_config.cert_file already, in line 2",
        ),
        (tls("cert_path: x"), "web.yml, line 4, tls_server_config.cert_path: there is no such key; there are: cert, "),
        (tls("client_allowed_sans: [a]"), "web.yml, line 4, tls_server_config.client_allowed_sans: names in client"),
        (tls("min_version: TLS10"), "web.yml, line 4, tls_server_config.min_version: TLS10 is not supported"),
        (tls("min_version: 1.3"), "web.yml, line 4, tls_server_config.min_version: '1.3' is not one of: TLS12, TLS13"),
        (tls("min_version: [TLS13]"), "web.yml, line 4, tls_server_config.min_version: one text is wanted here"),
        (
            format!("{}  max_version: TLS12\n", tls("min_version: TLS13")),
            "web.yml, line 2, tls_server_config: min_version is newer than max_version",
        ),
        (
            tls("client_auth_type: RequestClientCert"),
            "web.yml, line 4, tls_server_config.client_auth_type: RequestClientCert is not",
        ),
        (
            tls("client_auth_type: yes"),
            "web.yml, line 4, tls_server_config.client_auth_type: 'yes' is not one of: NoClientCert",
        ),
        (
            tls("client_auth_type: RequireAndVerifyClientCert"),
            "web.yml, line 4, tls_server_config.client_auth_type: it needs client_ca_file or client_ca",
        ),
        (
            tls("client_ca_file: ca"),
            "web.yml, line 4, tls_server_config.client_ca_file: nobody is asked for a certificate",
        ),
        (
            tls("prefer_server_cipher_suites: 'true'"),
            "web.yml, line 4, tls_server_config.prefer_server_cipher_suites: true or",
        ),
        (tls("cipher_suites: a"), "web.yml, line 4, tls_server_config.cipher_suites: a list is wanted here"),
        (tls("curve_preferences: [[a]]"), "web.yml, line 4, tls_server_config.curve_preferences: a list of texts"),
        (
            "http_server_config:\n  http2: true\n".to_owned(),
            "web.yml, line 2, http_server_config.http2: HTTP/2 is not served",
        ),
        (
            "http_server_config:\n  http3: true\n".to_owned(),
            "web.yml, line 2, http_server_config.http3: there is no such key",
        ),
        (
            "http_server_config:\n  headers:\n    X-Frame-Options: allow\n".to_owned(),
            "web.yml, line 3, http_server_config.headers.X-Frame-Options: 'allow' is not one of: deny, sameorigin",
        ),
        (
            "http_server_config:\n  headers:\n    Server: x\n".to_owned(),
            "web.yml, line 3, http_server_config.headers.Server: there is no such key; there are: Strict-",
        ),
        (
            "http_server_config: {headers: {Content-Security-Policy: \"a\\nb\"}}\n".to_owned(),
            "web.yml, line 1, http_server_config.headers.Content-Security-Policy: it has characters",
        ),
        ("basic_auth_users:\n  alice:\n".to_owned(), "web.yml, line 2, basic_auth_users.alice: it has no bcrypt hash"),
        (
            "basic_auth_users:\n  alice: secret\n".to_owned(),
            "web.yml, line 2, basic_auth_users.alice: it is not a bcrypt",
        ),
        (format!("basic_auth_users:\n  a:b: {good}\n"), "web.yml, line 2, basic_auth_users.a:b: a user's name"),
        (format!("basic_auth_users:\n  '': {good}\n"), "web.yml, line 2, basic_auth_users.: a user's name"),
        (
            format!("basic_auth_users:\n  alice: {}\n", good.replace("$04$", "$31$")),
            "web.yml, line 2, basic_auth_users.alice: its cost is not between 4 and 15",
        ),
    ] {
        let error = parse(&text).expect_err(&text);
        assert!(error.starts_with(expected), "{text}\n{error}");
    }
}

/// Who starts the daemon sees it in a terminal, and its log has lines.
#[test]
fn what_is_wrong_is_one_line() {
    let escaped = r#""a\n\e[2J\u202e'b'""#;
    let long = "x".repeat(81);
    for (text, expected) in [
        (
            format!("{escaped}: 1\n"),
            r"web.yml, line 1, a\n\u{1b}[2J\u{202e}'b': there is no such key; there are: tls_server_config, ",
        ),
        (
            format!("http_server_config: {{headers: {{X-Frame-Options: {escaped}}}}}\n"),
            r"web.yml, line 1, http_server_config.headers.X-Frame-Options: 'a\n\u{1b}[2J\u{202e}'b'' is not one of: deny",
        ),
        (
            format!("tls_server_config: {{min_version: {escaped}}}\n"),
            r"web.yml, line 1, tls_server_config.min_version: 'a\n\u{1b}[2J\u{202e}'b'' is not one of: TLS12, TLS13",
        ),
        (
            format!("tls_server_config: {{client_auth_type: {long}}}\n"),
            &format!("web.yml, line 1, tls_server_config.client_auth_type: '{}...' is not one of: ", &long[1..]),
        ),
        (format!("{long}: 1\n"), &format!("web.yml, line 1, {}...: there is no such key", &long[1..])),
    ] {
        let error = parse(&text).expect_err(&text);
        assert!(error.starts_with(expected), "{text}\n{error}");
    }
}

#[test]
fn a_secret_is_in_no_message() {
    let config = parse(&format!("basic_auth_users: {{alice: {}}}", hash("a"))).unwrap();
    let tls = parse("tls_server_config: {cert: c, key: PRIVATE}").unwrap();
    let shown = format!("{config:?} {tls:?}");
    assert!(!shown.contains("$2y$") && !shown.contains("PRIVATE"), "{shown}");
    let error = parse("basic_auth_users: {alice: secret}").unwrap_err();
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yml");
    let load = || WebConfig::load(&file, &Files::of(&file)).unwrap_err();
    assert!(load().to_string().ends_with("web.yml: cannot be read: No such file or directory (os error 2)"));
    std::fs::write(&file, b"a: \xff\n").unwrap();
    assert_eq!((load().line, load().what), (None, "it is not UTF-8".to_owned()));
    std::fs::write(&file, "# \n".repeat(100_000)).unwrap();
    assert_eq!(load().what, "cannot be read: it has more than 262144 bytes");
}

/// Whatever is in the file: an answer, and no panic.
#[test]
fn any_text_has_an_answer() {
    let mut random = Random::new(5);
    let good = format!(
        "tls_server_config:\n  cert_file: a\n  key_file: 'b'\nhttp_server_config:\n  headers:\n    X-Frame-Options: deny\n\
         basic_auth_users: {{alice: {}}}\n",
        hash("a")
    );
    let pieces = [
        "\n", ":", " ", "- ", "[", "]", "{", "}", "'", "\"", "|\n", "&a", "*a", "!!x", "?", "%", "\t", "\u{fe0f}",
        "<<: ",
    ];
    let mut errors = 0;
    for _ in 0..3000 {
        let mut text: Vec<char> = good.chars().collect();
        for _ in 0..1 + random.below(6) {
            let at = random.below(text.len());
            let until = (at + random.below(12)).min(text.len());
            text.splice(at..until, random.pick(&pieces).chars());
        }
        errors += usize::from(parse(&text.into_iter().collect::<String>()).is_err());
    }
    assert!(errors > 1000, "{errors}");
}
