//! Who may ask: names and bcrypt hashes, and the check of a password, which is slow by design.

use std::{
    collections::HashMap,
    fmt,
    hint::black_box,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::header::HeaderValue;
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, time::Instant};

#[cfg(test)]
pub(in crate::export::http) mod tests;

/// Checks that run at one time. Whoever guesses passwords takes no more processors than that.
const CONCURRENT_CHECKS: usize = 2;
/// How long a password that was right is known without a check, from its last use. A scrape comes more often.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Passwords that are known; one per user, and those of before a reload.
const MOST_REMEMBERED: usize = 128;
/// The highest cost: 2^15 rounds take seconds already.
const HIGHEST_COST: u32 = 15;
/// The lowest that bcrypt has.
const LOWEST_COST: u32 = 4;
/// bcrypt reads no more of a password, with the zero byte that ends it.
const LONGEST_KEY: usize = 72;

/// A bcrypt hash, as `htpasswd -nB` makes it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hash {
    /// Rounds, as a power of two.
    cost: u32,
    salt: [u8; 16],
    digest: [u8; 23],
}

/// A hash is half of a password.
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash {{ cost: {} }}", self.cost)
    }
}

impl FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "it is not a bcrypt hash ($2y$10$ and 53 more characters): htpasswd -nBC 10 makes one";
        let bytes: &[u8; 60] = text.as_bytes().try_into().map_err(|_| FORM)?;
        let known = [&b"$2a$"[..], b"$2b$", b"$2y$"].contains(&&bytes[..4]);
        if !known || !bytes[4..6].iter().all(u8::is_ascii_digit) || bytes[6] != b'$' {
            return Err(FORM);
        }
        let cost = u32::from(bytes[4] - b'0') * 10 + u32::from(bytes[5] - b'0');
        if !(LOWEST_COST..=HIGHEST_COST).contains(&cost) {
            return Err("its cost is not between 4 and 15: a check would take too long, or none is that cheap");
        }
        let (mut salt, mut digest) = ([0; 16], [0; 23]);
        bcrypt::BASE_64.decode_slice(&bytes[7..29], &mut salt).map_err(|_| FORM)?;
        bcrypt::BASE_64.decode_slice(&bytes[29..], &mut digest).map_err(|_| FORM)?;
        Ok(Self { cost, salt, digest })
    }
}

impl Hash {
    /// Takes as long as the cost says, whatever the password.
    fn is_of(&self, password: &[u8]) -> bool {
        let mut key = password[..password.len().min(LONGEST_KEY)].to_vec();
        if key.len() < LONGEST_KEY {
            key.push(0);
        }
        let digest = bcrypt::bcrypt(self.cost, self.salt, &key);
        // All of it, so that the time does not tell how much was right.
        let different = self.digest.iter().zip(&digest).fold(0, |bits, (ours, theirs)| bits | (ours ^ theirs));
        black_box(different) == 0
    }
}

/// The users of a configuration; at least one.
#[derive(Debug)]
pub(super) struct Users {
    hashes: HashMap<String, Hash>,
    /// Checked for a name that is unknown, so that the time does not tell that it is; when all hashes have the same cost.
    decoy: Hash,
}

impl Users {
    /// `None` without any user.
    pub(super) fn new(users: Vec<(String, Hash)>) -> Option<Self> {
        let decoy = users.iter().map(|(_, hash)| hash).max_by_key(|hash| hash.cost)?.clone();
        Some(Self { hashes: users.into_iter().collect(), decoy })
    }

    #[cfg(test)]
    pub(super) fn costs(&self) -> Vec<(String, u32)> {
        let mut costs: Vec<_> = self.hashes.iter().map(|(name, hash)| (name.clone(), hash.cost)).collect();
        costs.sort();
        costs
    }
}

/// A name and a password from `Authorization: Basic` (RFC 7617).
pub(super) struct Credentials {
    name: String,
    password: Vec<u8>,
}

impl Credentials {
    pub(super) fn of_header(value: &HeaderValue) -> Option<Self> {
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("Basic") {
            return None;
        }
        let mut name = STANDARD.decode(encoded.trim()).ok()?;
        let colon = name.iter().position(|byte| *byte == b':')?;
        let password = name.split_off(colon + 1);
        name.truncate(colon);
        Some(Self { name: String::from_utf8(name).ok()?, password })
    }
}

/// Checks passwords: few at a time, off the threads that serve, and not twice in a short time. Outlives a reload.
pub(super) struct Gate {
    permits: Arc<Semaphore>,
    /// Digests of what was right, with when it was last used.
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    /// Makes the digests worthless outside of this process.
    secret: [u8; 32],
}

impl Gate {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        let permits = Arc::new(Semaphore::new(CONCURRENT_CHECKS));
        Self { permits, remembered: Mutex::default(), secret }
    }

    /// True when the password is right.
    pub(super) async fn admits(&self, users: &Users, credentials: Credentials) -> bool {
        let known = users.hashes.get(&credentials.name);
        let hash = known.unwrap_or(&users.decoy).clone();
        let digest = self.digest(&credentials, &hash);
        if known.is_some() && self.remembers(&digest) {
            return true;
        }
        // Those who wait are as many as there are connections at most. The permit goes with the check, which runs to its end
        // even when the client has gone.
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return false };
        let is_known = known.is_some();
        let check = tokio::task::spawn_blocking(move || {
            let right = hash.is_of(&credentials.password);
            drop(permit);
            right
        });
        let right = check.await.unwrap_or(false) && is_known;
        if right {
            self.remember(digest);
        }
        right
    }

    /// Of the hash too, so that a changed password is not remembered.
    fn digest(&self, credentials: &Credentials, hash: &Hash) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.secret);
        digest.update((credentials.name.len() as u64).to_le_bytes());
        digest.update(&credentials.name);
        digest.update(hash.cost.to_le_bytes());
        digest.update(hash.salt);
        digest.update(hash.digest);
        digest.update(&credentials.password);
        digest.finalize().into()
    }

    fn remembers(&self, digest: &[u8; 32]) -> bool {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        match remembered.get_mut(digest) {
            Some(used) if used.elapsed() < REMEMBERED => {
                *used = Instant::now();
                true
            }
            _ => false,
        }
    }

    fn remember(&self, digest: [u8; 32]) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.retain(|_, used| used.elapsed() < REMEMBERED);
        if remembered.len() >= MOST_REMEMBERED
            && let Some(oldest) = remembered.iter().min_by_key(|(_, used)| **used).map(|(digest, _)| *digest)
        {
            remembered.remove(&oldest);
        }
        remembered.insert(digest, Instant::now());
    }
}
