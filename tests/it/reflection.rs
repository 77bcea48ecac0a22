//! Who asks which services there are, and where nobody is told.

use tokio_stream::StreamExt;
use tonic::{Code, Status, transport::Endpoint};
use tonic_reflection::pb::{v1, v1alpha};

use crate::identity::Door;

/// The names of all services, by the protocol of today.
async fn services(door: &Door) -> Result<Vec<String>, Status> {
    use v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let asked = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut client = ServerReflectionClient::new(channel(door).await);
    let mut answers = client.server_reflection_info(tokio_stream::once(asked)).await?.into_inner();
    let answer = answers.next().await.unwrap()?.message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    Ok(list.service.into_iter().map(|one| one.name).collect())
}

/// Whether the protocol from before the first version is spoken.
async fn before_v1(door: &Door) -> Result<(), Status> {
    use v1alpha::{ServerReflectionRequest, server_reflection_client::ServerReflectionClient};
    let asked = tokio_stream::once(ServerReflectionRequest::default());
    ServerReflectionClient::new(channel(door).await).server_reflection_info(asked).await.map(drop)
}

async fn channel(door: &Door) -> tonic::transport::Channel {
    Endpoint::from_shared(format!("http://127.0.0.1:{}", door.port())).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn case_33_reflection_names_services_where_it_is_on() {
    let door = Door::open("local", "", &[]).await;
    let names = services(&door).await.unwrap();
    assert!(names.contains(&"bearerd.v1.TokenService".to_owned()), "{names:?}");
    before_v1(&door).await.unwrap();
}

#[tokio::test]
async fn case_33_reflection_that_is_switched_off_is_not_there() {
    let door = Door::open("local", "reflection = false\n", &[]).await;
    assert_eq!(services(&door).await.unwrap_err().code(), Code::Unimplemented);
    assert_eq!(before_v1(&door).await.unwrap_err().code(), Code::Unimplemented);
    door.plain().await.get().await.unwrap();
}
