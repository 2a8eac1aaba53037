//! AlterConfigs: sets the configs of a resource as a whole. What is not named goes back to its
//! default.

use odradek_protocol::ResponseError;
use odradek_protocol::messages::alter_configs_request::AlterConfigsResource;
use odradek_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use odradek_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use odradek_storage::command::{ConfigChange, ConfigOperation};

use crate::context::Context;
use crate::resources::{alter, resolve};
use crate::session::Session;
use crate::topics::Refusal;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    _: i16,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match replace(context, resource, request.validate_only).await {
            Ok(()) => response,
            Err(Refusal { code, message }) => {
                response.with_error_code(code.code()).with_error_message(Some(message.into()))
            }
        });
    }
    AlterConfigsResponse::default().with_responses(responses)
}

async fn replace(
    context: &Context,
    asked: AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    let resource = resolve(context, asked.resource_type, asked.resource_name.as_str()).await?;
    let mut changes = Vec::with_capacity(asked.configs.len());
    for config in asked.configs {
        let name = config.name.as_str().to_owned();
        let Some(value) = config.value else {
            let message = format!("{name} needs a value");
            return Err(Refusal::new(ResponseError::InvalidConfig, message));
        };
        let operation = ConfigOperation::Set(value.as_str().to_owned());
        changes.push(ConfigChange { name, operation });
    }
    alter(context, resource, true, changes, validate_only).await
}
