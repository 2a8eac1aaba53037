//! Opening a table: is it there, is it one of ours.

use std::time::Duration;

use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    TableDescription, TableStatus,
};
use tokio::time::{sleep, timeout};

use super::{CALL_MAX, DynamoDbLocation, DynamoDbLog, Inner, Patience, items};
use crate::aws::{Failure, NO_REGION, advised};

/// Time between two attempts to reach a service that does not answer.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Time between two looks at a table that is being made.
const CREATING_INTERVAL: Duration = Duration::from_millis(500);

/// Creating a table takes longer than reading from it.
const CREATE_MAX: Duration = Duration::from_secs(10);

/// Why a table can't be used: a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("dynamodb://{table}: {what}")]
pub struct OpenDynamoDbError {
    /// The table.
    pub table: String,
    /// What is wrong, and what to do about it.
    pub what: String,
}

/// What a look at the table showed.
enum Look {
    Usable,
    BeingMade,
    Missing,
}

impl DynamoDbLog {
    /// Opens the table, creating it if that is wanted. Waits, and says so, as long as the service
    /// can't be reached.
    pub(crate) async fn open(location: DynamoDbLocation) -> Result<Self, OpenDynamoDbError> {
        Self::open_with(location, Patience::default()).await
    }

    pub(crate) async fn open_with(
        location: DynamoDbLocation,
        patience: Patience,
    ) -> Result<Self, OpenDynamoDbError> {
        let log = Self::connect(location, patience).await;
        let inner = &log.inner;
        let table = inner.location.table.clone();
        let sorry = |what| OpenDynamoDbError { table: table.clone(), what };
        let region = inner.client.config().region().map(ToString::to_string);
        let Some(region) = region else {
            return Err(sorry(NO_REGION.to_owned()));
        };
        loop {
            let look = inner.look().await;
            if let Some(complaint) = inner.skew.complaint() {
                return Err(sorry(complaint));
            }
            match look {
                Ok(Look::Usable) => return Ok(log),
                Ok(Look::BeingMade) => sleep(CREATING_INTERVAL).await,
                Ok(Look::Missing) if inner.location.create => {
                    inner.create().await.map_err(sorry)?;
                    tracing::info!(table, region, "table created");
                }
                Ok(Look::Missing) => {
                    return Err(sorry(format!(
                        "there is no such table in region {region}: create it, or add \
                         ?create=true"
                    )));
                }
                Err(Failure::Refused { code, message }) => {
                    return Err(sorry(advised(&code, message)));
                }
                Err(Failure::Throttled(said) | Failure::Unknown(said)) => {
                    let endpoint = inner.location.access.shown();
                    tracing::warn!(table, endpoint, cause = said, "waiting for DynamoDB");
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }
}

impl Inner {
    async fn look(&self) -> Result<Look, Failure> {
        let describe = self.client.describe_table().table_name(&self.location.table).send();
        let reply = timeout(CALL_MAX, describe).await.map_err(|_| Failure::takes_too_long())?;
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                let service_error = error.as_service_error();
                let is_missing =
                    service_error.is_some_and(DescribeTableError::is_resource_not_found_exception);
                return if is_missing { Ok(Look::Missing) } else { Err(Failure::of(&error)) };
            }
        };
        let Some(table) = reply.table() else { return Ok(Look::BeingMade) };
        if let Some(message) = complaint(table) {
            return Err(Failure::Refused { code: String::new(), message });
        }
        match table.table_status() {
            Some(TableStatus::Active | TableStatus::Updating) => Ok(Look::Usable),
            Some(TableStatus::Creating) | None => Ok(Look::BeingMade),
            Some(other) => {
                let message = format!("the table is {other}: wait, or name another");
                Err(Failure::Refused { code: String::new(), message })
            }
        }
    }

    async fn create(&self) -> Result<(), String> {
        let attribute = AttributeDefinition::builder()
            .attribute_name(items::SLOT)
            .attribute_type(ScalarAttributeType::S)
            .build();
        let key =
            KeySchemaElement::builder().attribute_name(items::SLOT).key_type(KeyType::Hash).build();
        let (attribute, key) =
            attribute.and_then(|it| Ok((it, key?))).map_err(|error| error.to_string())?;
        let create = self
            .client
            .create_table()
            .table_name(&self.location.table)
            .attribute_definitions(attribute)
            .key_schema(key)
            .billing_mode(BillingMode::PayPerRequest)
            .send();
        let Ok(created) = timeout(CREATE_MAX, create).await else {
            // The next look shows.
            return Ok(());
        };
        let Err(error) = created else { return Ok(()) };
        let service_error = error.as_service_error();
        // Another broker was quicker.
        if service_error.is_some_and(CreateTableError::is_resource_in_use_exception) {
            return Ok(());
        }
        match Failure::of(&error) {
            Failure::Refused { message, .. } => Err(format!("it can't be created: {message}")),
            Failure::Throttled(_) | Failure::Unknown(_) => Ok(()),
        }
    }
}

/// What is wrong with the key of a table, if it is not ours.
fn complaint(table: &TableDescription) -> Option<String> {
    let keys: Vec<String> = table
        .key_schema()
        .iter()
        .map(|key| format!("{} ({})", key.attribute_name(), key.key_type()))
        .collect();
    let is_text = table.attribute_definitions().iter().any(|attribute| {
        attribute.attribute_name() == items::SLOT
            && *attribute.attribute_type() == ScalarAttributeType::S
    });
    let is_ours = keys == [format!("{} ({})", items::SLOT, KeyType::Hash)] && is_text;
    (!is_ours).then(|| {
        format!(
            "its key is {}, where a string \"slot\" (HASH) alone is needed: this table belongs to \
             something else, name another",
            keys.join(", ")
        )
    })
}
