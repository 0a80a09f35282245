//! The gRPC services around agents' identities: enrolment and renewal for agents, tokens and revocation for administrators.

use crate::identity::core::Grant;
use crate::identity::{Identities, PeerAgent};
use crate::incoming::Visit;
use phalanx_proto::v1;
use phalanx_proto::v1::enrolment_server::{Enrolment, EnrolmentServer};
use phalanx_proto::v1::identities_server::{self, IdentitiesServer};
use phalanx_shared::id::AgentId;
use phalanx_shared::identity::EnrolToken;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Maximum size of a request: a token and a request for a certificate have a few kilobytes.
const REQUEST_BYTES: usize = 64 << 10;
/// Longest reason that is kept.
const REASON_CHARS: usize = 200;

/// Implements both services.
#[derive(Clone)]
pub struct Office(Option<Identities>);

impl Office {
    /// Creates the services of a coordinator; one without TLS has no identities.
    pub fn new(identities: Option<Identities>) -> Office {
        Office(identities)
    }

    /// Returns the service for agents.
    pub fn for_agents(&self) -> EnrolmentServer<Office> {
        EnrolmentServer::new(self.clone()).max_decoding_message_size(REQUEST_BYTES)
    }

    /// Returns the service for administrators.
    pub fn for_administrators(&self) -> IdentitiesServer<Office> {
        IdentitiesServer::new(self.clone()).max_decoding_message_size(REQUEST_BYTES)
    }

    fn identities(&self) -> Result<&Identities, Status> {
        self.0.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "this coordinator has no identities, because it listens without TLS: start it with `phalanx serve --tls`",
            )
        })
    }

    /// Returns the agent that makes a call.
    fn caller<T>(&self, request: &Request<T>) -> Result<PeerAgent, Status> {
        let visit = Visit::of(request);
        let presented = visit.as_ref().and_then(Visit::presented);
        Ok(self.identities()?.admit(presented)?)
    }
}

#[tonic::async_trait]
impl Enrolment for Office {
    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::IssuedCertificate>, Status> {
        let v1::EnrolRequest {
            token,
            agent_id,
            signing_request,
        } = request.into_inner();
        let token = EnrolToken::parse(&token)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let agent = AgentId(agent_id);
        let issued = self
            .identities()?
            .enrol(&token, agent, &signing_request)
            .await?;
        Ok(Response::new(v1::IssuedCertificate {
            certificate: issued.certificate,
            coordinator_ca: issued.ca.unwrap_or_default(),
        }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::IssuedCertificate>, Status> {
        let PeerAgent { agent, .. } = self.caller(&request)?;
        let v1::RenewRequest { signing_request } = request.into_inner();
        let issued = self.identities()?.renew(agent, &signing_request).await?;
        Ok(Response::new(v1::IssuedCertificate {
            certificate: issued.certificate,
            coordinator_ca: issued.ca.unwrap_or_default(),
        }))
    }
}

#[tonic::async_trait]
impl identities_server::Identities for Office {
    async fn create_agent_token(
        &self,
        request: Request<v1::CreateAgentTokenRequest>,
    ) -> Result<Response<v1::CreateAgentTokenResponse>, Status> {
        let v1::CreateAgentTokenRequest {
            pool,
            labels,
            slots,
            ttl_s,
            uses,
        } = request.into_inner();
        let grant = Grant {
            pool: Some(pool).filter(|pool| !pool.is_empty()),
            labels,
            slots: Some(slots).filter(|slots| *slots > 0),
        };
        let lasts = Duration::from_secs(ttl_s);
        let made = self.identities()?.create_token(grant, lasts, uses).await?;
        Ok(Response::new(v1::CreateAgentTokenResponse {
            id: made.token.id().to_owned(),
            token: made.token.reveal(),
            expires_us: made.expires.0,
        }))
    }

    async fn list_identities(
        &self,
        _: Request<v1::ListIdentitiesRequest>,
    ) -> Result<Response<v1::ListIdentitiesResponse>, Status> {
        let all = self.identities()?.all().into_iter();
        let identities = all.map(|identity| {
            let grant = identity.grant.unwrap_or_default();
            v1::IdentityInfo {
                agent_id: identity.agent.to_string(),
                pool: grant.pool.unwrap_or_default(),
                labels: grant.labels,
                slots: grant.slots.unwrap_or_default(),
                standing: identity.standing.word().to_owned(),
                reason: identity.standing.reason().unwrap_or_default().to_owned(),
                generation: identity.issued,
                expires_us: identity.expires.0,
            }
        });
        Ok(Response::new(v1::ListIdentitiesResponse {
            identities: identities.collect(),
        }))
    }

    async fn revoke_identity(
        &self,
        request: Request<v1::RevokeIdentityRequest>,
    ) -> Result<Response<v1::RevokeIdentityResponse>, Status> {
        let v1::RevokeIdentityRequest { agent_id, reason } = request.into_inner();
        let reason: String = reason
            .chars()
            .filter(|c| !c.is_control())
            .take(REASON_CHARS)
            .collect();
        let reason = match reason.trim() {
            "" => "no reason given".to_owned(),
            reason => reason.to_owned(),
        };
        let agent = AgentId(agent_id);
        let revoked = self.identities()?.revoke(agent.clone(), reason).await;
        match revoked {
            Ok(true) => Ok(Response::new(v1::RevokeIdentityResponse {})),
            Ok(false) => Err(Status::not_found(format!(
                "there is no identity {agent}: `phalanx agents identities` lists them"
            ))),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}
