//! Who logged in on a page. The browser keeps a random key in a cookie, and never the token.

use crate::access::secret::{DIGEST, NoRandomness, Presented, random, sha256};
use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Name of the cookie.
const NAME: &str = "phalanx_session";
/// How long a browser keeps the cookie, in seconds.
const MAX_AGE: u32 = 12 * 3_600;
/// Sessions that are remembered. Beyond that, the oldest end.
const SESSIONS: usize = 1_024;

/// The open sessions of this process, by the digests of their keys.
#[derive(Default)]
pub struct Sessions(Mutex<Open>);

#[derive(Default)]
struct Open {
    begun: u64,
    sessions: HashMap<[u8; DIGEST], (u64, Presented)>,
}

impl Sessions {
    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the token of the session that a request belongs to.
    pub fn of(&self, headers: &HeaderMap) -> Option<Presented> {
        let key = key(headers)?;
        let open = self.open();
        let session = open.sessions.get(&sha256(key));
        session.map(|(_, token)| token.clone())
    }

    /// Begins a session. Returns its cookie.
    pub fn begin(&self, token: Presented) -> Result<String, NoRandomness> {
        let key = hex::encode(random::<DIGEST>()?);
        let mut open = self.open();
        if open.sessions.len() >= SESSIONS {
            let oldest = open.sessions.iter().min_by_key(|(_, (begun, _))| *begun);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                open.sessions.remove(&oldest);
            }
        }
        open.begun += 1;
        let begun = open.begun;
        open.sessions.insert(sha256(&key), (begun, token));
        Ok(format!(
            "{NAME}={key}; Path=/; Max-Age={MAX_AGE}; HttpOnly; SameSite=Strict"
        ))
    }

    /// Ends the session of a request. Returns a cookie that removes the browser's.
    pub fn end(&self, headers: &HeaderMap) -> String {
        if let Some(key) = key(headers) {
            self.open().sessions.remove(&sha256(key));
        }
        format!("{NAME}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict")
    }
}

/// Returns the key in the cookies of a request.
fn key(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).into_iter();
    let cookies = cookies.filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(NAME)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::access::secret::fresh;

    fn with(cookie: &str) -> HeaderMap {
        let (pair, _) = cookie.split_once(';').unwrap_or((cookie, ""));
        HeaderMap::from_iter([(COOKIE, format!("a=b; {pair}").parse().unwrap())])
    }

    #[test]
    fn a_session_is_found_by_its_cookie_until_it_ends() {
        let sessions = Sessions::default();
        let token = fresh().unwrap();
        let cookie = sessions.begin(token.kept.clone()).unwrap();
        assert!(!cookie.contains(&token.text[20..]), "no token in it");
        assert_eq!(sessions.of(&with(&cookie)), Some(token.kept));
        assert_eq!(sessions.of(&with("phalanx_session=00")), None);
        assert_eq!(sessions.of(&HeaderMap::new()), None);
        assert!(sessions.end(&with(&cookie)).contains("Max-Age=0"));
        assert_eq!(sessions.of(&with(&cookie)), None);
    }

    #[test]
    fn sessions_are_bounded() {
        let sessions = Sessions::default();
        let token = fresh().unwrap().kept;
        let first = sessions.begin(token.clone()).unwrap();
        for _ in 0..SESSIONS {
            sessions.begin(token.clone()).unwrap();
        }
        assert_eq!(sessions.open().sessions.len(), SESSIONS);
        assert_eq!(sessions.of(&with(&first)), None);
    }
}
