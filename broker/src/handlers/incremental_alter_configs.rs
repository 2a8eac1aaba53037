//! IncrementalAlterConfigs: changes single configs of a resource (KIP-339).

use odradek_protocol::ResponseError;
use odradek_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use odradek_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use odradek_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use odradek_storage::command::{ConfigChange, ConfigOperation};

use crate::configs::{ConfigType, find};
use crate::context::Context;
use crate::resources::{Resource, alter, current, resolve};
use crate::session::Session;
use crate::topics::Refusal;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(crate) async fn handle(
    context: &Context,
    _: &Session,
    _: i16,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match change(context, resource, request.validate_only).await {
            Ok(()) => response,
            Err(Refusal { code, message }) => {
                response.with_error_code(code.code()).with_error_message(Some(message.into()))
            }
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn change(
    context: &Context,
    asked: AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    let resource = resolve(context, asked.resource_type, asked.resource_name.as_str()).await?;
    let changes = asked.configs.into_iter().map(|config| understand(context, &resource, config));
    let changes = changes.collect::<Result<Vec<_>, _>>()?;
    alter(context, resource, false, changes, validate_only).await
}

fn understand(
    context: &Context,
    resource: &Resource,
    config: AlterableConfig,
) -> Result<ConfigChange, Refusal> {
    let name = config.name.as_str().to_owned();
    let value = || {
        let value = config.value.as_ref().map(|value| value.as_str().to_owned());
        value.ok_or_else(|| {
            Refusal::new(ResponseError::InvalidConfig, format!("{name} needs a value"))
        })
    };
    let operation = match config.config_operation {
        SET => ConfigOperation::Set(value()?),
        DELETE => ConfigOperation::Delete,
        operation @ (APPEND | SUBTRACT) => {
            let is_list =
                find(resource.table(), &name).is_none_or(|it| it.kind == ConfigType::List);
            if !is_list {
                let message = format!("{name} is no list to append to or subtract from");
                return Err(Refusal::new(ResponseError::InvalidConfig, message));
            }
            let now = current(context, resource, &name).unwrap_or_default();
            ConfigOperation::Set(combine(&now, &value()?, operation == APPEND))
        }
        other => {
            let message = format!("there is no operation {other} on configs");
            return Err(Refusal::new(ResponseError::InvalidRequest, message));
        }
    };
    Ok(ConfigChange { name, operation })
}

/// Adds the items of one list to another, or takes them away.
fn combine(now: &str, items: &str, add: bool) -> String {
    let split = |list: &str| -> Vec<String> {
        list.split(',').map(str::trim).filter(|it| !it.is_empty()).map(ToOwned::to_owned).collect()
    };
    let (mut list, items) = (split(now), split(items));
    list.retain(|item| !items.contains(item));
    if add {
        list.extend(items);
    }
    list.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_added_to_and_taken_from() {
        assert_eq!(combine("delete", "compact", true), "delete,compact");
        assert_eq!(combine("delete,compact", "delete", false), "compact");
        assert_eq!(combine("a", "a", true), "a");
        assert_eq!(combine("", "a, b", true), "a,b");
    }
}
