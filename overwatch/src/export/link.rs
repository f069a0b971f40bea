//! What the collecting process and the one that answers HTTP requests tell each other, over a pair of sockets.
//!
//! Two processes, since the one that looks into all processes and namespaces of the host should not be the one that reads what strangers
//! send. Each frame is a kind, a length and a text.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
};

/// So many messages wait at either end: one of each kind at most.
pub const MOST_WAITING: usize = 8;

macro_rules! messages {
    ($(#[$doc:meta])* $name:ident, at most $longest:literal bytes { $($(#[$of:meta])* $variant:ident = $kind:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $variant(String),)* }

        impl Message for $name {
            const LONGEST: u32 = $longest;

            fn into_frame(self) -> (u8, String) {
                match self { $(Self::$variant(text) => ($kind, text),)* }
            }

            fn from_frame(kind: u8, text: String) -> Option<Self> {
                match kind { $($kind => Some(Self::$variant(text)),)* _ => None }
            }
        }
    };
}

/// What can be sent.
pub trait Message: Sized {
    /// The longest text, in bytes.
    const LONGEST: u32;
    /// Its kind, and its text.
    fn into_frame(self) -> (u8, String);
    /// `None` for a kind that there is not.
    fn from_frame(kind: u8, text: String) -> Option<Self>;
}

messages! {
    /// To the process that answers requests. Where there is nothing to say the text is empty. The longest is far more than the most series have.
    ToWeb, at most 0x1000_0000 bytes {
        /// The metrics that it has asked for.
        Page = 1,
        /// Why there are none.
        NoPage = 2,
        /// From now on it is ready.
        Ready = 3,
        /// The configuration file of the HTTP server and those that it names: `http::Files`. Before anything else, and to take them anew.
        Files = 4,
        /// It is to end, once it has answered what was asked.
        Stop = 5,
        /// Whether it still works.
        Hello = 6,
    }
}

messages! {
    /// From the process that answers requests, likewise. It may be in the hands of a stranger, and gets no more memory here than it needs.
    FromWeb, at most 0x1_0000 bytes {
        /// It listens: at these addresses, one in each line.
        Listening = 1,
        /// It cannot, and why.
        Failed = 2,
        /// It wants the metrics.
        Ask = 3,
        /// It has taken its configuration anew.
        Reloaded = 4,
        /// It could not, and why; the one before stays in force.
        NotReloaded = 5,
        /// It still works.
        Alive = 6,
    }
}

/// The next message; `None` when the other end has gone.
pub async fn receive<M: Message>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<M>> {
    let kind = match from.read_u8().await {
        Ok(kind) => kind,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let length = from.read_u32_le().await?;
    if length > M::LONGEST {
        return Err(wrong("a message is too long"));
    }
    let mut text = Vec::new();
    from.take(length.into()).read_to_end(&mut text).await?;
    if text.len() as u64 != u64::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let text = String::from_utf8(text).map_err(|_| wrong("a message is no text"))?;
    M::from_frame(kind, text).map(Some).ok_or_else(|| wrong("a message is of no known kind"))
}

/// Hands on what comes, until either end has gone. For a task of its own: a message that has come in part must not be dropped.
pub async fn hear<M: Message>(mut from: impl AsyncRead + Unpin, heard: mpsc::Sender<M>) {
    while let Ok(Some(message)) = receive(&mut from).await {
        if heard.send(message).await.is_err() {
            break;
        }
    }
}

/// Sends one.
pub async fn send<M: Message>(to: &mut (impl AsyncWrite + Unpin), message: M) -> io::Result<()> {
    let (kind, text) = message.into_frame();
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= M::LONGEST);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a message is too long"))?;
    let mut frame = Vec::with_capacity(text.len() + size_of::<u8>() + size_of::<u32>());
    frame.push(kind);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(text.as_bytes());
    to.write_all(&frame).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[tokio::test]
    async fn what_is_sent_is_received_in_order_and_then_nothing() {
        let (mut here, mut there) = tokio::io::duplex(64);
        let messages = [
            FromWeb::Listening("127.0.0.1:9752\n[::1]:9752".to_owned()),
            FromWeb::Ask(String::new()),
            FromWeb::NotReloaded("ä".repeat(1000)),
        ];
        let sent = messages.clone();
        let sender = tokio::spawn(async move {
            for message in sent {
                send(&mut there, message).await.unwrap();
            }
        });
        for message in messages {
            assert_eq!(receive::<FromWeb>(&mut here).await.unwrap(), Some(message));
        }
        sender.await.unwrap();
        assert_eq!(receive::<FromWeb>(&mut here).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_message_is_an_error() {
        for (bytes, expected) in [
            (&[3, 1, 0][..], "unexpected end of file"),
            (&[3, 2, 0, 0, 0, b'a'], "unexpected end of file"),
            (&[3, 1, 0, 0, 0, 0xff], "a message is no text"),
            (&[9, 0, 0, 0, 0], "a message is of no known kind"),
            (&[0, 0, 0, 0, 0], "a message is of no known kind"),
            (&[3, 1, 0, 0, 0x10], "a message is too long"),
            (&[3, 0xff, 0xff, 0xff, 0xff], "a message is too long"),
        ] {
            let error = receive::<ToWeb>(&mut &*bytes).await.unwrap_err();
            assert_eq!(error.to_string(), expected, "{bytes:?}");
        }
        // From the one that strangers talk to no more is taken than it has to say.
        let error = receive::<FromWeb>(&mut &[5, 1, 0, 1, 0][..]).await.unwrap_err();
        assert_eq!(error.to_string(), "a message is too long");
        let longest = FromWeb::NotReloaded("a".repeat(FromWeb::LONGEST as usize));
        let mut frame = Vec::new();
        send(&mut frame, longest.clone()).await.unwrap();
        assert_eq!(receive::<FromWeb>(&mut &*frame).await.unwrap(), Some(longest));
    }

    #[tokio::test]
    async fn random_bytes_are_messages_or_errors() {
        let mut random = Random::new(11);
        for _ in 0..2_000 {
            let bytes: Vec<u8> = (0..random.below(40)).map(|_| random.below(7) as u8).collect();
            let mut left = &*bytes;
            while let Ok(Some(message)) = receive::<FromWeb>(&mut left).await {
                let (kind, text) = message.into_frame();
                assert!((1..=6).contains(&kind) && text.len() <= bytes.len(), "{bytes:?}");
            }
        }
    }
}
