//! What standard gRPC tools expect of any server: health and reflection.

use crate::rig::Fleet;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest as Ask;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse as Answer;
use tonic_reflection::pb::v1::{ErrorResponse, ListServiceResponse, ServerReflectionRequest};

#[tokio::test(flavor = "multi_thread")]
async fn health_is_answered_for_the_whole_and_for_each_service() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let mut client = HealthClient::new(at.channel().await);
    for service in ["", "phalanx.v1.Control", "phalanx.v1.AgentLink"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = client.check(request.clone()).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
        let mut watched = client.watch(request).await.unwrap().into_inner();
        let first = watched.message().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::Serving, "{service:?}");
    }
    let service = "phalanx.v1.Nothing".to_owned();
    let unknown = client.check(HealthCheckRequest { service }).await;
    assert_eq!(unknown.unwrap_err().code(), tonic::Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_names_the_services_and_describes_them() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let mut client = ServerReflectionClient::new(at.channel().await);
    let asked = [
        Ask::ListServices(String::new()),
        Ask::FileContainingSymbol("phalanx.v1.Control".to_owned()),
        Ask::FileContainingSymbol("phalanx.v1.AgentLink.Session".to_owned()),
        Ask::FileByFilename("phalanx/v1/common.proto".to_owned()),
        Ask::FileContainingSymbol("phalanx.v1.Nothing".to_owned()),
    ];
    let requests = asked.map(|ask| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(ask),
    });
    let answers = client
        .server_reflection_info(tokio_stream::iter(requests))
        .await;
    let mut answers = answers.unwrap().into_inner();
    let mut next = async || {
        answers
            .message()
            .await
            .map(|answer| answer.unwrap().message_response.unwrap())
    };
    let Answer::ListServicesResponse(ListServiceResponse { service }) = next().await.unwrap()
    else {
        panic!("no list of services");
    };
    let names: Vec<&str> = service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    for name in ["phalanx.v1.AgentLink", "phalanx.v1.Control"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for _ in 0..3 {
        let Answer::FileDescriptorResponse(found) = next().await.unwrap() else {
            panic!("no description");
        };
        assert!(!found.file_descriptor_proto.is_empty());
    }
    // An unknown name is reported as not found, in an answer or as the end of the call.
    match next().await {
        Ok(Answer::ErrorResponse(ErrorResponse { error_code, .. })) => assert_eq!(error_code, 5),
        Err(status) => assert_eq!(status.code(), tonic::Code::NotFound),
        Ok(other) => panic!("{other:?}"),
    }
}
