//! What the server has written, read as strictly as RFC 9112 has it.

use std::io::Read as _;

use flate2::read::GzDecoder;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub(super) code: u16,
    headers: Vec<(&'a str, &'a str)>,
    pub(super) body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// Of a header that is there once.
    pub(super) fn header(&self, name: &str) -> Option<&'a str> {
        let mut values = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| *value);
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    /// The body as it was before it was compressed.
    pub(super) fn text(&self) -> Vec<u8> {
        if self.header("content-encoding") != Some("gzip") || self.body.is_empty() {
            return self.body.to_vec();
        }
        let mut text = Vec::new();
        let result = GzDecoder::new(self.body).read_to_end(&mut text);
        assert!(result.is_ok(), "{result:?}: {self:?}");
        text
    }
}

/// All answers, and whether the last one is whole. What is no answer is a panic.
pub(super) fn all(mut bytes: &[u8]) -> (Vec<Answer<'_>>, bool) {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let Some((answer, rest)) = next(bytes) else { return (answers, false) };
        answers.push(answer);
        bytes = rest;
    }
    (answers, true)
}

/// `None` for one that is not whole.
fn next(bytes: &[u8]) -> Option<(Answer<'_>, &[u8])> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let Ok(head) = std::str::from_utf8(&bytes[..end]) else { panic!("{:?}", String::from_utf8_lossy(bytes)) };
    assert!(head.split("\r\n").all(|line| !line.is_empty() && !line.contains(is_steering)), "{head:?}");
    let (first, lines) = head.split_once("\r\n").unwrap_or((head, ""));
    let Some(code) = code(first) else { panic!("{first:?}") };
    let headers = lines.split("\r\n").map(|line| match line.split_once(':') {
        Some((name, value)) if !name.is_empty() && name.bytes().all(in_name) => (name, value.trim()),
        _ => panic!("{line:?}"),
    });
    let mut answer = Answer { code, headers: headers.collect(), body: &[] };
    let rest = &bytes[end + 4..];
    let Some(length) = answer.header("content-length").and_then(|length| length.parse().ok()) else {
        panic!("without a length: {head:?}")
    };
    // To HEAD there is none: the next answer or the end is where it would be. No body here begins like an answer.
    if rest.is_empty() || rest.starts_with(b"HTTP/") {
        return Some((answer, rest));
    }
    let (body, rest) = rest.split_at_checked(length)?;
    answer.body = body;
    Some((answer, rest))
}

fn is_steering(letter: char) -> bool {
    letter.is_control() || !letter.is_ascii()
}

fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

fn code(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.1 ").or(line.strip_prefix("HTTP/1.0 "))?;
    let (code, reason) = rest.split_once(' ')?;
    (code.len() == 3 && !reason.is_empty()).then(|| code.parse().ok())?
}
