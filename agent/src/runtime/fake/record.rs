//! Records the calls to the fake and the violations of the contract.

use phalanx_shared::id::Token;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub struct Record {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    calls: Vec<String>,
    violations: Vec<String>,
    open: HashSet<Token>,
    shut_down: bool,
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn call(&self, call: String) {
        let mut inner = self.lock();
        if inner.shut_down {
            inner.violations.push(format!("{call} after shutdown"));
        }
        inner.calls.push(call);
    }

    pub fn violation(&self, what: String) {
        self.lock().violations.push(what);
    }

    pub fn opened(&self, token: &Token) {
        let mut inner = self.lock();
        if !inner.open.insert(token.clone()) {
            inner.violations.push(format!("open {token} twice"));
        }
    }

    pub fn closed(&self, token: &Token) {
        self.lock().open.remove(token);
    }

    pub fn shut_down(&self) {
        let mut inner = self.lock();
        let open: Vec<String> = inner
            .open
            .iter()
            .map(|token| format!("shutdown while {token} is open"))
            .collect();
        inner.violations.extend(open);
        inner.shut_down = true;
    }

    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    pub fn open_stacks(&self) -> HashSet<Token> {
        self.lock().open.clone()
    }
}
