//! Frames between the two processes of the daemon.

use tokio::io::{AsyncWriteExt as _, duplex};

use crate::export::{
    http::Files,
    link::{self, FromWeb, Message, ToWeb},
};

/// The first byte is how many bytes arrive at a time; what follows is received by both processes.
pub fn link(bytes: &[u8]) {
    let Some((at_a_time, frames)) = bytes.split_first() else { return };
    let at_a_time = usize::from(*at_a_time).max(1);
    super::run(async {
        let (of_web, of_collector) = (all::<FromWeb>(frames, at_a_time).await, all::<ToWeb>(frames, at_a_time).await);
        // They have as many kinds, so one takes what the other takes.
        assert_eq!(of_web.len(), of_collector.len());
        for message in of_collector {
            if let ToWeb::Files(text) = message {
                files(&text);
            }
        }
    });
}

/// All messages up to the end or the first that is none: sent again, they are the bytes that they were.
async fn all<M: Message + Clone>(frames: &[u8], at_a_time: usize) -> Vec<M> {
    let (mut near, mut far) = duplex(at_a_time);
    let send = async {
        // Nobody reads on after what is no message.
        let _gone = near.write_all(frames).await;
        drop(near);
    };
    let receive = async {
        let mut messages = Vec::new();
        let is_whole = loop {
            match link::receive::<M>(&mut far).await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break true,
                Err(error) => {
                    super::assert_is_one_line(&error.to_string());
                    break false;
                }
            }
        };
        drop(far);
        (messages, is_whole)
    };
    let ((), (messages, is_whole)) = tokio::join!(send, receive);
    let mut again = Vec::new();
    for message in &messages {
        let sent = link::send(&mut again, message.clone()).await;
        assert!(sent.is_ok(), "{sent:?}");
    }
    assert!(frames.starts_with(&again), "{frames:?} is not {again:?}");
    assert!(!is_whole || again.len() == frames.len(), "{frames:?} has more than {again:?}");
    messages
}

/// The files that the collecting process hands over.
fn files(text: &str) {
    let Ok(files) = Files::from_text(text) else { return };
    let text = files.to_text();
    let again = text.as_ref().ok().and_then(|text| Files::from_text(text).ok());
    assert_eq!(again, Some(files), "{text:?}");
}
