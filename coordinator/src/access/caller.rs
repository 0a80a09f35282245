//! Who makes a call, as its handler sees it.

use super::core::{Identity, Role, Scope};
use super::secret::Presented;
use phalanx_shared::namespace::Namespace;
use std::sync::{Arc, OnceLock};
use tonic::{Request, Status};

/// Who makes a call, and which namespaces the call is about.
#[derive(Clone, Debug)]
pub struct Caller {
    who: Who,
    scope: Scope,
    /// What the call was about, for the audit log.
    about: Arc<OnceLock<String>>,
}

#[derive(Clone, Debug)]
enum Who {
    /// Somebody of a coordinator without access control. May do everything.
    Machine,
    /// The owner of a token.
    Known(Arc<Identity>, Arc<Presented>),
    /// Somebody without a valid token, in a call that needs none.
    Stranger,
}

impl Caller {
    /// Returns somebody who may do everything.
    pub fn machine(scope: Scope) -> Caller {
        Caller {
            who: Who::Machine,
            scope,
            about: Arc::default(),
        }
    }

    /// Returns somebody who may do what needs no token.
    pub(super) fn stranger() -> Caller {
        Caller {
            who: Who::Stranger,
            scope: Scope::All,
            about: Arc::default(),
        }
    }

    /// Returns the owner of a token.
    pub(super) fn known(identity: Arc<Identity>, token: Arc<Presented>, scope: Scope) -> Caller {
        Caller {
            who: Who::Known(identity, token),
            scope,
            about: Arc::default(),
        }
    }

    /// Returns the caller of a request. Without one the request didn't come through the layer, and nobody may answer it.
    pub fn of<T>(request: &Request<T>) -> Result<Caller, Status> {
        let caller = request.extensions().get::<Caller>();
        let caller = caller.cloned();
        caller.ok_or_else(|| Status::internal("nobody checked who makes this call"))
    }

    /// Returns the namespaces that the call is about.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns the only namespace that the call is about; `None` for all.
    pub fn only(&self) -> Option<&Namespace> {
        self.scope.only()
    }

    /// Returns the namespace of what the call creates.
    pub fn home(&self) -> Namespace {
        self.scope.only().cloned().unwrap_or_default()
    }

    /// Returns whose the runs are that the call creates; empty without access control.
    pub fn subject(&self) -> &str {
        self.identity().map_or("", |who| &who.subject)
    }

    /// Returns whether the caller has a role; no stranger has one.
    pub fn has(&self, role: Role) -> bool {
        match &self.who {
            Who::Machine => true,
            Who::Known(identity, _) => identity.role >= role,
            Who::Stranger => false,
        }
    }

    /// Returns whether the caller has a role in all namespaces.
    pub fn has_everywhere(&self, role: Role) -> bool {
        let everywhere = match &self.who {
            Who::Machine => true,
            Who::Known(identity, _) => identity.scope == Scope::All,
            Who::Stranger => false,
        };
        everywhere && self.has(role)
    }

    /// Returns whether the caller may cancel a run of this owner.
    pub fn may_cancel(&self, owner: &str) -> bool {
        self.has(Role::Admin) || (self.has(Role::CancelOwn) && self.subject() == owner)
    }

    /// Notes what the call is about, for the audit log: a run, an agent, a token.
    pub fn about(&self, what: String) {
        // The first one stays.
        let _ = self.about.set(what);
    }

    /// Returns what the call was about.
    pub(super) fn was_about(&self) -> String {
        self.about.get().cloned().unwrap_or_default()
    }

    /// Returns who it is, if it has a token.
    pub fn identity(&self) -> Option<&Identity> {
        match &self.who {
            Who::Known(identity, _) => Some(identity),
            Who::Machine | Who::Stranger => None,
        }
    }

    /// Returns the caller's token as it is checked.
    pub(super) fn token(&self) -> Option<&Arc<Presented>> {
        match &self.who {
            Who::Known(_, token) => Some(token),
            Who::Machine | Who::Stranger => None,
        }
    }
}
