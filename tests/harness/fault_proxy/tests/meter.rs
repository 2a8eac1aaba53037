//! What is counted, and what it would cost.

use serde_json::json;

use super::super::{Chance, Count};
use super::*;

/// What a store that answers with `behaviour` has counted for one request.
async fn counted(operation: &str, body: &Value, behaviour: Behaviour) -> Count {
    let store = Store::start(behaviour).await;
    let proxy = FaultProxy::start(store.address, 1);
    ask(proxy.address(), dynamodb(operation, body)).await.unwrap();
    let mut counts = proxy.counts();
    let count = counts.remove(operation).unwrap();
    assert!(counts.is_empty(), "{counts:?}");
    assert_eq!((count.requests, count.delivered, count.faults), (1, 1, 0));
    count
}

/// What it costs to write `body`, and what it costs when the condition does not hold.
async fn written(operation: &str, body: &Value) -> f64 {
    let done = counted(operation, body, |_| reply(200, &json!({}))).await;
    let refused = counted(operation, body, |_| {
        let name = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException";
        reply(400, &json!({ "__type": name }))
    })
    .await;
    assert_eq!(done.write_units, refused.write_units, "{operation}");
    assert_eq!((done.read_units, refused.read_units), (0.0, 0.0));
    done.write_units
}

fn reply(status: u16, body: &Value) -> Response<Bytes> {
    answer(status, "application/x-amz-json-1.0", body)
}

/// An item of exactly `bytes`: the name `slot` with a value of 1 and the name `entry` with base64.
fn item(bytes: usize) -> Value {
    let entry = bytes - "slot".len() - 1 - "entry".len();
    let mut text = "A".repeat(entry.div_ceil(3) * 4);
    let padding = (3 - entry % 3) % 3;
    text.replace_range(text.len() - padding.., &"=".repeat(padding));
    json!({ "slot": { "S": "1" }, "entry": { "B": text } })
}

#[tokio::test]
async fn requests_and_bytes_are_counted_by_operation() {
    let store = Store::obliging().await;
    let proxy = FaultProxy::start(store.address, 1);
    for path in ["/b/1", "/b/2", "/b/3"] {
        ask(proxy.address(), put(path)).await.unwrap();
    }
    ask(proxy.address(), get("/b/1")).await.unwrap();
    let put = Count {
        requests: 3,
        request_bytes: 3 * 5,
        delivered: 3,
        reply_bytes: 3 * 4,
        ..Count::default()
    };
    let get = Count { requests: 1, request_bytes: 0, delivered: 1, reply_bytes: 4, ..put.clone() };
    let expected = [("GetObject".to_owned(), get), ("PutObject".to_owned(), put)];
    assert_eq!(proxy.counts(), expected.into());
    proxy.reset_counts();
    assert!(proxy.counts().is_empty());
}

#[tokio::test]
async fn a_write_costs_a_unit_for_each_kib_begun_even_if_its_condition_failed() {
    for (bytes, units) in [(11, 1.0), (1024, 1.0), (1025, 2.0), (1026, 2.0), (10_240, 10.0)] {
        let body = json!({ "TableName": "t", "Item": item(bytes) });
        assert_eq!(written("PutItem", &body).await, units, "{bytes}");
    }
    let key = json!({ "slot": { "S": "1" } });
    assert_eq!(written("DeleteItem", &json!({ "Key": key })).await, 1.0);
    let update = json!({ "Key": key, "ExpressionAttributeValues": { ":v": item(1500)["entry"] } });
    assert_eq!(written("UpdateItem", &update).await, 2.0);
    // Each write of a transaction is prepared and committed.
    let transaction = json!({ "TransactItems": [
        { "Put": { "Item": item(1500) } }, { "Delete": { "Key": key } },
    ] });
    assert_eq!(written("TransactWriteItems", &transaction).await, 6.0);
}

#[tokio::test]
async fn writes_of_a_batch_that_were_put_off_cost_nothing() {
    let batch = json!({ "RequestItems": { "t": [
        { "PutRequest": { "Item": item(1500) } },
        { "PutRequest": { "Item": item(2500) } },
        { "DeleteRequest": { "Key": { "slot": { "S": "1" } } } },
    ] } });
    let count = counted("BatchWriteItem", &batch, |_| {
        let put_off = json!({ "t": [{ "PutRequest": { "Item": item(2500) } }] });
        reply(200, &json!({ "UnprocessedItems": put_off }))
    })
    .await;
    assert_eq!(count.write_units, 3.0);
}

#[tokio::test]
async fn what_the_store_refused_and_what_never_reached_it_costs_nothing() {
    let body = json!({ "Item": item(5000) });
    let count = counted("PutItem", &body, |_| {
        let name = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
        reply(400, &json!({ "__type": name }))
    })
    .await;
    assert_eq!(count.write_units, 0.0);

    let store = Store::obliging().await;
    let proxy = FaultProxy::start(store.address, 1);
    proxy.set_faults(Faults { throttled: Chance::always(""), ..Faults::default() });
    ask(proxy.address(), dynamodb("PutItem", &body)).await.unwrap();
    let count = proxy.counts().remove("PutItem").unwrap();
    assert_eq!((count.requests, count.delivered, count.write_units), (1, 0, 0.0));
}

#[tokio::test]
async fn a_read_costs_a_unit_for_each_4_kib_begun_and_half_if_it_may_be_stale() {
    let fresh = json!({ "ConsistentRead": true });
    let stale = json!({ "ConsistentRead": false });
    let found: Behaviour = |_| reply(200, &json!({ "Item": item(4097) }));
    let missing: Behaviour = |_| reply(200, &json!({}));
    for (body, behaviour, units) in [
        (&fresh, found, 2.0),
        (&stale, found, 1.0),
        (&json!({}), found, 1.0),
        (&fresh, missing, 1.0),
        (&stale, missing, 0.5),
    ] {
        assert_eq!(counted("GetItem", body, behaviour).await.read_units, units, "{body}");
    }
    // A query adds its items up before it rounds.
    let items: Behaviour = |_| reply(200, &json!({ "Items": [item(3000), item(3000), item(100)] }));
    assert_eq!(counted("Query", &fresh, items).await.read_units, 2.0);
    assert_eq!(counted("Scan", &stale, items).await.read_units, 1.0);
}

#[tokio::test]
async fn a_batch_of_reads_costs_for_each_key_asked_for_and_answered() {
    let key = |slot: &str| json!({ "slot": { "S": slot } });
    let keys = json!([key("1"), key("2"), key("3"), key("4"), key("5")]);
    let answered: Behaviour = |_| {
        reply(
            200,
            &json!({
                "Responses": { "t": [item(100), item(4097)] },
                "UnprocessedKeys": { "t": { "Keys": [{ "slot": { "S": "5" } }] } },
            }),
        )
    };
    // 1 and 2 for what was found, 1 for each of the two missing, nothing for the one put off.
    let body = json!({ "RequestItems": { "t": { "Keys": keys, "ConsistentRead": true } } });
    assert_eq!(counted("BatchGetItem", &body, answered).await.read_units, 5.0);
    let body = json!({ "RequestItems": { "t": { "Keys": keys } } });
    assert_eq!(counted("BatchGetItem", &body, answered).await.read_units, 2.5);
}

#[tokio::test]
async fn an_item_is_as_big_as_its_names_and_values() {
    // 1000 are filled; what the other attribute takes decides whether the item fits one unit.
    for (value, bytes) in [
        (json!({ "S": "\u{e4}bc" }), 4),
        (json!({ "N": "12345" }), 4),
        (json!({ "B": "AAAA" }), 3),
        (json!({ "B": "AA==" }), 1),
        (json!({ "BOOL": true }), 1),
        (json!({ "NULL": true }), 1),
        (json!({ "SS": ["ab", "c"] }), 3),
        (json!({ "NS": ["1", "200"] }), 5),
        (json!({ "BS": ["AAA=", "AAAA"] }), 5),
        (json!({ "L": [{ "S": "a" }, { "BOOL": false }] }), 3 + 2 + 2),
        (json!({ "M": { "ab": { "S": "c" } } }), 3 + 1 + 3),
    ] {
        let name = "n";
        for (total, units) in [(1024, 1.0), (1025, 2.0)] {
            let mut item = item(total - name.len() - bytes);
            item[name] = value.clone();
            let body = json!({ "Item": item });
            assert_eq!(written("PutItem", &body).await, units, "{value} is not {bytes}");
        }
    }
}
