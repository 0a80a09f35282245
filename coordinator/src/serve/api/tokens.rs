//! The server side of `phalanx.v1.Access`: tokens are made, listed and revoked, and the audit log is read.

use super::answer;
use super::status::of_store;
use crate::access::audit::{Entry, Happened};
use crate::access::core::{Identity, Role, Scope};
use crate::access::tokens::{NotMade, Token, Tokens, Wish};
use crate::access::{Access, Caller};
use crate::clock::Clock;
use phalanx_proto::limit;
use phalanx_proto::v1;
use phalanx_proto::v1::access_server::{self, AccessServer};
use phalanx_shared::namespace::Namespace;
use phalanx_shared::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Implements the `Access` service.
pub struct AccessApi {
    access: Access,
    clock: Arc<dyn Clock>,
}

impl AccessApi {
    /// Creates the service of a coordinator.
    pub fn service(access: Access, clock: Arc<dyn Clock>) -> AccessServer<AccessApi> {
        AccessServer::new(AccessApi { access, clock })
            .max_encoding_message_size(limit::CLIENT_ANSWER_BYTES)
    }

    fn tokens(&self) -> Result<&Tokens, Status> {
        self.access.tokens().ok_or_else(|| {
            Status::failed_precondition(
                "this coordinator asks for no tokens: `serve.access = true` in its settings turns that on",
            )
        })
    }

    async fn who(&self, caller: &Caller) -> Result<v1::WhoAmIResponse, Status> {
        let Some(identity) = caller.identity() else {
            return Ok(v1::WhoAmIResponse::default());
        };
        let token = self.tokens()?.get(&identity.token).await;
        let token = token.map_err(of_store)?;
        Ok(v1::WhoAmIResponse {
            controlled: true,
            token: token.map(info),
        })
    }

    async fn create(
        &self,
        caller: &Caller,
        request: v1::CreateTokenRequest,
    ) -> Result<v1::CreateTokenResponse, Status> {
        let v1::CreateTokenRequest {
            name,
            role,
            namespace,
            ttl_s,
        } = request;
        let wish = wish(caller, name, &role, &namespace, ttl_s)?;
        let made = self.tokens()?.add(wish, self.clock.wall()).await;
        let (fresh, token) = made.map_err(not_made)?;
        caller.about(format!("token {}", token.in_words()));
        Ok(v1::CreateTokenResponse {
            token: Some(info(token)),
            secret: fresh.text,
        })
    }

    async fn list(&self, caller: &Caller) -> Result<v1::ListTokensResponse, Status> {
        let tokens = self.tokens()?.list(caller.scope()).await;
        let tokens = tokens.map_err(of_store)?;
        Ok(v1::ListTokensResponse {
            tokens: tokens.into_iter().map(info).collect(),
        })
    }

    async fn audit(
        &self,
        caller: &Caller,
        request: v1::ListAuditRequest,
    ) -> Result<v1::ListAuditResponse, Status> {
        let v1::ListAuditRequest {
            from,
            since_us,
            limit,
            whole,
        } = request;
        if whole && !caller.has_everywhere(Role::Admin) {
            return Err(Status::permission_denied(
                "checking the audit log needs the role `admin` in all namespaces: others see a part of it",
            ));
        }
        let limit = if limit == 0 { AUDIT } else { limit.min(AUDIT) };
        let only = caller.only().map(Namespace::as_str);
        let audit = self.tokens()?.audit();
        let entries = audit.list(from, Timestamp(since_us), only, limit).await;
        let entries = entries.map_err(of_store)?;
        Ok(v1::ListAuditResponse {
            entries: entries.into_iter().map(entry).collect(),
        })
    }

    async fn revoke(
        &self,
        caller: &Caller,
        request: v1::RevokeTokenRequest,
    ) -> Result<v1::RevokeTokenResponse, Status> {
        let tokens = self.tokens()?;
        let found = tokens.get(&request.id).await.map_err(of_store)?;
        let seen = found.filter(|token| caller.scope().includes(&token.identity.scope));
        let missing = || {
            Status::not_found(format!(
                "there is no token {:?}: `phalanx token list` lists them",
                request.id
            ))
        };
        let token = seen.ok_or_else(missing)?;
        caller.about(format!("token {}", token.in_words()));
        let id = &token.identity.token;
        let now = self.clock.wall();
        tokens.revoke(id, now).await.map_err(of_store)?;
        self.access.forget(id);
        let token = tokens.get(id).await.map_err(of_store)?;
        Ok(v1::RevokeTokenResponse {
            token: token.map(info),
        })
    }
}

/// Most entries of the audit log in one answer.
const AUDIT: u32 = 1_000;

fn entry(entry: Entry) -> v1::AuditEntry {
    let Entry {
        number,
        at,
        happened,
        hash,
    } = entry;
    let Happened {
        token,
        name,
        namespace,
        from,
        call,
        about,
        result,
    } = happened;
    v1::AuditEntry {
        number,
        at_us: at.0,
        token,
        name,
        namespace,
        from,
        call,
        about,
        result,
        hash,
    }
}

/// Checks the wish for a token. Nobody can give more than it has.
fn wish(
    caller: &Caller,
    name: String,
    role: &str,
    namespace: &str,
    ttl_s: u64,
) -> Result<Wish, Status> {
    let role = Role::parse(role).ok_or_else(|| {
        Status::invalid_argument(format!(
            "there is no role {role:?}: choose read, run, cancel-own or admin"
        ))
    })?;
    let scope = match namespace {
        Scope::ALL => Scope::All,
        name => {
            let name = name.parse();
            Scope::One(
                name.map_err(|error: phalanx_shared::namespace::InvalidNamespace| {
                    Status::invalid_argument(error.to_string())
                })?,
            )
        }
    };
    if !caller.scope().includes(&scope) {
        return Err(Status::permission_denied(format!(
            "a token for {scope} can be made by an `admin` of {scope} or of all namespaces"
        )));
    }
    let by = caller.identity().map_or("", |who| who.name.as_str());
    Ok(Wish {
        name,
        role,
        scope,
        ttl: (ttl_s > 0).then(|| Duration::from_secs(ttl_s)),
        by: by.to_owned(),
        subject: None,
    })
}

fn not_made(error: NotMade) -> Status {
    match error {
        NotMade::Name => Status::invalid_argument(error.to_string()),
        NotMade::Random(_) => Status::unavailable(error.to_string()),
        NotMade::Store(error) => of_store(error),
    }
}

/// Returns what may be told of a token.
pub fn info(token: Token) -> v1::TokenInfo {
    let (created_by, created) = (token.created_by.clone(), token.created);
    let (used, revoked) = (token.used, token.revoked);
    let Identity {
        subject: _,
        name,
        role,
        scope,
        token: id,
        expires,
    } = token.identity;
    v1::TokenInfo {
        id,
        name,
        role: role.to_string(),
        namespace: scope.to_string(),
        created_by,
        created_us: created.0,
        expires_us: expires.map(|at| at.0),
        used_us: used.map(|at| at.0),
        revoked_us: revoked.map(|at| at.0),
    }
}

#[tonic::async_trait]
impl access_server::Access for AccessApi {
    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        answer(self.who(&Caller::of(&request)?).await)
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let caller = Caller::of(&request)?;
        answer(self.create(&caller, request.into_inner()).await)
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        answer(self.list(&Caller::of(&request)?).await)
    }

    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        let caller = Caller::of(&request)?;
        answer(self.audit(&caller, request.into_inner()).await)
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let caller = Caller::of(&request)?;
        answer(self.revoke(&caller, request.into_inner()).await)
    }
}
