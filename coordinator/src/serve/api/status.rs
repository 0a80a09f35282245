//! Converts the coordinator's errors to gRPC statuses.

use crate::journal::StoreError;
use kameo::error::SendError;
use tonic::Status;

/// Converts a journal error.
pub(super) fn of_store(error: StoreError) -> Status {
    match error {
        StoreError::Full
        | StoreError::Unavailable(_)
        | StoreError::InUse { .. }
        | StoreError::Deposed => Status::unavailable(error.to_string()),
        // A retry changes nothing.
        StoreError::Read(_) | StoreError::Damaged { .. } => Status::data_loss(error.to_string()),
        StoreError::Refused(_) | StoreError::Unusable { .. } => Status::internal(error.to_string()),
    }
}

/// Converts the error of an actor that doesn't answer.
pub(super) fn of_actor<M, E: std::fmt::Debug>(error: SendError<M, E>) -> Status {
    let why = match error {
        SendError::ActorNotRunning(_) | SendError::ActorStopped => "it has stopped",
        SendError::ActorRestarting(_) => "it is starting again",
        SendError::MailboxFull(_) => "its mailbox is full",
        SendError::Timeout(_) => "it didn't answer in time",
        SendError::HandlerError(_) => "it refused",
    };
    Status::unavailable(format!("the coordinator can't answer: {why}"))
}

/// Converts a journal error that an actor returned, or the error that it doesn't answer.
pub(super) fn of_store_actor<M>(error: SendError<M, StoreError>) -> Status {
    match error {
        SendError::HandlerError(error) => of_store(error),
        other => of_actor(other),
    }
}
