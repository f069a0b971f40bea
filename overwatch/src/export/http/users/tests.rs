use std::time::Duration;

use super::*;

/// The cheapest hash of a password.
pub(in crate::export::http) fn hash(password: &str) -> String {
    let salt = [7; 16];
    let digest = bcrypt::bcrypt(LOWEST_COST, salt, &[password.as_bytes(), &[0]].concat());
    format!("$2y$04${}{}", bcrypt::BASE_64.encode(salt), bcrypt::BASE_64.encode(&digest[..23]))
}

/// Vectors of crypt_blowfish (Openwall) and jBCrypt.
#[test]
fn a_hash_is_of_its_password_only() {
    let long = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored";
    for (text, password) in [
        ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
        ("$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
        ("$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui", long),
        ("$2y$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.", ""),
        (&hash("secret"), "secret"),
    ] {
        let hash: Hash = text.parse().unwrap();
        assert!(hash.is_of(password.as_bytes()), "{text}");
        for wrong in ["U*", "U*U*", "u*u", "secret ", "x"] {
            assert!(!hash.is_of(wrong.as_bytes()), "{text} {wrong}");
        }
    }
}

#[test]
fn what_is_no_hash_is_refused() {
    let good = hash("secret");
    for (text, expected) in [
        (String::new(), "it is not a bcrypt hash"),
        ("secret".to_owned(), "it is not a bcrypt hash"),
        (good[..59].to_owned(), "it is not a bcrypt hash"),
        (format!("{good}x"), "it is not a bcrypt hash"),
        (good.replace("$2y$", "$2x$"), "it is not a bcrypt hash"),
        (good.replace("$2y$", "$apr"), "it is not a bcrypt hash"),
        (good.replace("$04$", "$4x$"), "it is not a bcrypt hash"),
        (format!("{}!", &good[..59]), "it is not a bcrypt hash"),
        (good.replace("$04$", "$03$"), "its cost is not between 4 and 15"),
        (good.replace("$04$", "$16$"), "its cost is not between 4 and 15"),
        (good.replace("$04$", "$99$"), "its cost is not between 4 and 15"),
    ] {
        let error = text.parse::<Hash>().unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn credentials_are_read_from_a_header() {
    for (text, expected) in [
        ("Basic YWxpY2U6c2VjcmV0", Some(("alice", "secret"))),
        ("basic  YWxpY2U6c2VjcmV0", Some(("alice", "secret"))),
        ("Basic YWxpY2U6YTpi", Some(("alice", "a:b"))),
        ("Basic YWxpY2U6", Some(("alice", ""))),
        ("Basic Og==", Some(("", ""))),
        ("Basic YWxpY2U=", None),
        ("Basic //46YQ==", None),
        ("Basic !", None),
        ("Basic", None),
        ("Bearer YWxpY2U6c2VjcmV0", None),
        ("", None),
    ] {
        let found = Credentials::of_header(&HeaderValue::from_static(text));
        let found = found.map(|found| (found.name, String::from_utf8(found.password).unwrap()));
        assert_eq!(found, expected.map(|(name, password)| (name.to_owned(), password.to_owned())), "{text}");
    }
}

fn credentials(name: &str, password: &str) -> Credentials {
    Credentials { name: name.to_owned(), password: password.as_bytes().to_vec() }
}

fn users(name: &str, password: &str) -> Users {
    Users::new(vec![(name.to_owned(), hash(password).parse().unwrap())]).unwrap()
}

#[tokio::test]
async fn the_gate_lets_in_who_has_the_password() {
    let gate = Gate::new([1; 32]);
    let users = users("alice", "secret");
    // Twice, so that the second time is by memory where there is one.
    for _ in 0..2 {
        for (name, password, expected) in [
            ("alice", "secret", true),
            ("alice", "Secret", false),
            ("alice", "", false),
            ("bob", "secret", false),
            ("", "", false),
        ] {
            assert_eq!(gate.admits(&users, credentials(name, password)).await, expected, "{name}:{password}");
        }
    }
    assert_eq!(gate.remembered.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_name_that_is_unknown_costs_a_check_too() {
    let gate = Gate::new([1; 32]);
    let users = users("alice", "secret");
    assert!(gate.admits(&users, credentials("alice", "secret")).await);
    let _all = gate.permits.acquire_many(CONCURRENT_CHECKS.try_into().unwrap()).await.unwrap();
    // With no check free, only what is remembered comes through.
    assert!(gate.admits(&users, credentials("alice", "secret")).await);
    for (name, password) in [("alice", "wrong"), ("bob", "secret")] {
        let waits = tokio::time::timeout(Duration::from_millis(50), gate.admits(&users, credentials(name, password)));
        assert!(waits.await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_changed_password_is_not_remembered() {
    let gate = Gate::new([1; 32]);
    let (old, new) = (users("alice", "secret"), users("alice", "other"));
    assert!(gate.admits(&old, credentials("alice", "secret")).await);
    assert!(!gate.admits(&new, credentials("alice", "secret")).await);
    assert!(gate.admits(&new, credentials("alice", "other")).await);
    assert!(gate.admits(&old, credentials("alice", "secret")).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded_in_time_and_number() {
    let gate = Gate::new([1; 32]);
    gate.remember([0; 32]);
    tokio::time::advance(REMEMBERED - Duration::from_secs(1)).await;
    assert!(gate.remembers(&[0; 32]));
    tokio::time::advance(REMEMBERED - Duration::from_secs(1)).await;
    assert!(gate.remembers(&[0; 32]));
    tokio::time::advance(REMEMBERED).await;
    assert!(!gate.remembers(&[0; 32]));
    for byte in 0..=255 {
        tokio::time::advance(Duration::from_millis(1)).await;
        gate.remember([byte; 32]);
    }
    assert_eq!(gate.remembered.lock().unwrap().len(), MOST_REMEMBERED);
    assert!(gate.remembers(&[255; 32]) && gate.remembers(&[128; 32]) && !gate.remembers(&[127; 32]));
}
