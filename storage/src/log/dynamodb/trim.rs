//! Trimming: the floor first, the entries long after.

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, WriteRequest};
use tokio::time::sleep;

use super::{CALL_MAX, Inner, items};
use crate::aws::{Failure, Pauses, unthrottled};
use crate::log::{Freshness, Lsn};
use crate::port::PortError;

/// Most items of one BatchWriteItem.
const DELETES_MAX: usize = 25;

impl Inner {
    pub(super) async fn trim(&self, before: Lsn) -> Result<(), PortError> {
        let (floor, _) = self.read_floor_item().await?;
        if before > floor {
            if self.entries(before.prev(), 1, Freshness::Latest).await?.is_empty() {
                return Err(PortError::determinate(format!("{before} is past the tail")));
            }
            self.raise(items::FLOOR, before).await?;
        }
        let (floor, deleted) = self.read_floor_item().await?;
        if deleted == floor {
            return Ok(());
        }
        // Whoever read the old floor believes it for a while.
        sleep(self.patience.grace).await;
        let mut slots = (deleted.get()..floor.get()).map(Lsn::new).peekable();
        while slots.peek().is_some() {
            self.delete(slots.by_ref().take(DELETES_MAX).collect()).await?;
        }
        self.raise(items::DELETED, floor).await
    }

    /// Raises a position of the floor's item; it never sinks.
    async fn raise(&self, attribute: &str, to: Lsn) -> Result<(), PortError> {
        let to = AttributeValue::N(to.get().to_string());
        let update = self
            .client
            .update_item()
            .table_name(&self.location.table)
            .key(items::SLOT, AttributeValue::S(items::floor_key(&self.location.name)))
            .update_expression("SET #position = :to")
            .condition_expression("attribute_not_exists(#position) OR #position < :to")
            .expression_attribute_names("#position", attribute)
            .expression_attribute_values(":to", to);
        let Err(error) = unthrottled(CALL_MAX, || update.clone().send()).await? else {
            return Ok(());
        };
        let service_error = error.as_service_error();
        // Somebody raised it further.
        if service_error.is_some_and(UpdateItemError::is_conditional_check_failed_exception) {
            return Ok(());
        }
        Err(Failure::of(&error).into())
    }

    async fn delete(&self, slots: Vec<Lsn>) -> Result<(), PortError> {
        let requests: Result<Vec<WriteRequest>, _> = slots
            .into_iter()
            .map(|at| {
                let key = AttributeValue::S(items::key(&self.location.name, at));
                let delete = DeleteRequest::builder().key(items::SLOT, key).build()?;
                Ok(WriteRequest::builder().delete_request(delete).build())
            })
            .collect();
        let mut requests = requests
            .map_err(|error: aws_sdk_dynamodb::error::BuildError| PortError::determinate(error))?;
        let mut pauses = Pauses::default();
        loop {
            let write =
                self.client.batch_write_item().request_items(&self.location.table, requests);
            let reply = unthrottled(CALL_MAX, || write.clone().send()).await?;
            let reply = reply.map_err(|error| Failure::of(&error))?;
            let mut rest = reply.unprocessed_items.unwrap_or_default();
            requests = match rest.remove(&self.location.table) {
                Some(rest) if !rest.is_empty() => rest,
                _ => return Ok(()),
            };
            pauses.pause().await;
        }
    }
}
