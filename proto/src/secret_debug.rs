//! `Debug` of the messages that carry secrets, without the values (I4), so that no log can contain them.

use crate::v1::{
    CreateAgentTokenResponse, CreateTokenResponse, EnrolRequest, Offer, RerunRequest, SubmitRequest,
};
use std::collections::BTreeMap;
use std::fmt::{Debug, Formatter, Result};

fn names(secrets: &BTreeMap<String, String>) -> Vec<&str> {
    secrets.keys().map(String::as_str).collect()
}

impl Debug for Offer {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Offer {
            token,
            job_json,
            secrets,
            accept_within_ms,
            traceparent,
            spec_digest,
        } = self;
        f.debug_struct("Offer")
            .field("token", token)
            .field("job_bytes", &job_json.len())
            .field("secrets", &names(secrets))
            .field("accept_within_ms", accept_within_ms)
            .field("traceparent", traceparent)
            .field("spec_digest", spec_digest)
            .finish()
    }
}

impl Debug for SubmitRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let files: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        f.debug_struct("SubmitRequest")
            .field("files", &files)
            .field("only", &self.only)
            .field("cells", &self.cells)
            .field("options", &self.options)
            .field("secrets", &names(&self.secrets))
            .finish_non_exhaustive()
    }
}

impl Debug for RerunRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let RerunRequest {
            run_id,
            failed,
            cells,
            options,
            secrets,
        } = self;
        f.debug_struct("RerunRequest")
            .field("run_id", run_id)
            .field("failed", failed)
            .field("cells", cells)
            .field("options", options)
            .field("secrets", &names(secrets))
            .finish()
    }
}

impl Debug for CreateTokenResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let CreateTokenResponse { token, secret: _ } = self;
        f.debug_struct("CreateTokenResponse")
            .field("token", token)
            .finish_non_exhaustive()
    }
}

impl Debug for EnrolRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let EnrolRequest {
            token: _,
            agent_id,
            signing_request,
        } = self;
        f.debug_struct("EnrolRequest")
            .field("agent_id", agent_id)
            .field("request_bytes", &signing_request.len())
            .finish_non_exhaustive()
    }
}

impl Debug for CreateAgentTokenResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let CreateAgentTokenResponse {
            id,
            token: _,
            expires_us,
        } = self;
        f.debug_struct("CreateAgentTokenResponse")
            .field("id", id)
            .field("expires_us", expires_us)
            .finish_non_exhaustive()
    }
}
