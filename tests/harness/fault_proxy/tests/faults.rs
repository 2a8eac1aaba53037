//! Each fault does what it says, and only to those it is meant for.

use std::time::Duration;

use tokio::time::Instant;

use super::super::Chance;
use super::*;

async fn misbehaving(faults: Faults) -> (Store, FaultProxy) {
    let store = Store::obliging().await;
    let proxy = FaultProxy::start(store.address, 7);
    proxy.set_faults(faults);
    (store, proxy)
}

#[tokio::test]
async fn a_lost_reply_is_a_success_that_its_client_never_hears_of() {
    let (store, proxy) =
        misbehaving(Faults { reply_lost: Chance::once("PutObject"), ..Faults::default() }).await;
    assert!(ask(proxy.address(), get("/b/0")).await.is_ok());
    let error = ask(proxy.address(), put("/b/1")).await.unwrap_err();
    assert!(error.is_incomplete_message(), "{error:?}");
    store.has_seen(&["GET /b/0", "PUT /b/1"]).await;
    // Once was once.
    assert!(ask(proxy.address(), put("/b/2")).await.is_ok());
    let count = proxy.counts().remove("PutObject").unwrap();
    assert_eq!((count.requests, count.delivered, count.faults), (2, 2, 1));
}

#[tokio::test]
async fn a_late_request_takes_effect_after_its_client_gave_up() {
    // SUBTLE: the seed draws more than two seconds, in which the client gives up and asks again.
    let (store, proxy) = misbehaving(Faults {
        late: Chance::once("Put"),
        late_max: Duration::from_secs(4),
        ..Faults::default()
    })
    .await;
    ask(proxy.address(), put("/b/late")).await.unwrap_err();
    store.has_seen(&[]).await;
    // What the client does next overtakes it.
    ask(proxy.address(), put("/b/next")).await.unwrap();
    store.has_seen(&["PUT /b/next", "PUT /b/late"]).await;
}

#[tokio::test]
async fn a_duplicate_takes_effect_twice_and_answers_once() {
    let (store, proxy) =
        misbehaving(Faults { duplicate: Chance::once("Put"), ..Faults::default() }).await;
    let mut client = Client::connect(proxy.address()).await;
    assert_eq!(client.ask(put("/b/1")).await.unwrap().body(), "done");
    assert_eq!(client.ask(put("/b/2")).await.unwrap().body(), "done");
    store.has_seen(&["PUT /b/1", "PUT /b/1", "PUT /b/2"]).await;
    let count = proxy.counts().remove("PutObject").unwrap();
    assert_eq!((count.requests, count.delivered), (2, 3));
}

#[tokio::test]
async fn the_first_of_two_replies_is_the_answer() {
    // As a store that has "must not exist" would answer.
    let store = Store::start(|seen| match seen.len() {
        1 => answer(200, "text/plain", "created"),
        _ => answer(412, "text/plain", "is there already"),
    })
    .await;
    let proxy = FaultProxy::start(store.address, 7);
    proxy.set_faults(Faults { duplicate: Chance::always(""), ..Faults::default() });
    let reply = ask(proxy.address(), put("/b/1")).await.unwrap();
    assert_eq!((reply.status(), &reply.body()[..]), (StatusCode::OK, &b"created"[..]));
    store.has_seen(&["PUT /b/1", "PUT /b/1"]).await;
}

#[tokio::test]
async fn the_second_of_two_replies_says_what_the_first_request_did() {
    let store = Store::start(|seen| match seen.len() {
        1 => answer(200, "text/plain", "created"),
        _ => answer(412, "text/plain", "is there already"),
    })
    .await;
    let proxy = FaultProxy::start(store.address, 7);
    proxy.set_faults(Faults { second_reply: Chance::once("Put"), ..Faults::default() });
    let reply = ask(proxy.address(), put("/b/1")).await.unwrap();
    assert_eq!(reply.status(), StatusCode::PRECONDITION_FAILED);
    store.has_seen(&["PUT /b/1", "PUT /b/1"]).await;
}

#[tokio::test]
async fn a_conflict_and_a_missing_object_are_made_up() {
    let (store, proxy) = misbehaving(Faults {
        conflict: Chance::always("PutObject"),
        not_found: Chance::always("GetObject"),
        ..Faults::default()
    })
    .await;
    for (request, status, code) in [
        (put("/b/1"), StatusCode::CONFLICT, "ConditionalRequestConflict"),
        (get("/b/1"), StatusCode::NOT_FOUND, "NoSuchKey"),
    ] {
        let reply = ask(proxy.address(), request).await.unwrap();
        assert_eq!(reply.status(), status);
        assert!(str::from_utf8(reply.body()).unwrap().contains(code));
    }
    store.has_seen(&[]).await;
}

#[tokio::test]
async fn a_corrupted_reply_differs_in_one_bit() {
    let (store, proxy) =
        misbehaving(Faults { corrupted: Chance::always("Get"), ..Faults::default() }).await;
    let reply = ask(proxy.address(), get("/b/1")).await.unwrap();
    let bits = reply.body().iter().zip(b"done").map(|(found, sent)| (found ^ sent).count_ones());
    assert_eq!((reply.body().len(), bits.sum::<u32>()), (4, 1));
    store.has_seen(&["GET /b/1"]).await;
}

#[tokio::test]
async fn a_truncated_reply_breaks_off_within_its_body() {
    let (store, proxy) =
        misbehaving(Faults { truncated: Chance::once("Get"), ..Faults::default() }).await;
    let mut client = Client::connect(proxy.address()).await;
    let error = client.ask(get("/b/1")).await.unwrap_err();
    assert!(error.is_body_write_aborted() || error.is_incomplete_message(), "{error:?}");
    client.0.ready().await.unwrap_err();
    // Once was once.
    assert_eq!(ask(proxy.address(), get("/b/2")).await.unwrap().body(), "done");
    store.has_seen(&["GET /b/1", "GET /b/2"]).await;
}

#[tokio::test]
async fn an_internal_error_comes_before_or_after_the_effect() {
    let (store, proxy) = misbehaving(Faults {
        error_before: Chance::always("PutObject"),
        error_after: Chance::always("DeleteObject"),
        ..Faults::default()
    })
    .await;
    for (method, path) in [(Method::PUT, "/b/1"), (Method::DELETE, "/b/2")] {
        let reply = ask(proxy.address(), request(method, path, "")).await.unwrap();
        assert_eq!(reply.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(str::from_utf8(reply.body()).unwrap().contains("<Code>InternalError</Code>"));
    }
    store.has_seen(&["DELETE /b/2"]).await;
    let counts = proxy.counts();
    assert_eq!((counts["PutObject"].delivered, counts["PutObject"].faults), (0, 1));
    assert_eq!((counts["DeleteObject"].delivered, counts["DeleteObject"].faults), (1, 1));
}

#[tokio::test]
async fn each_service_is_throttled_in_its_own_words() {
    let (store, proxy) =
        misbehaving(Faults { throttled: Chance::always(""), ..Faults::default() }).await;
    let reply = ask(proxy.address(), put("/b/1")).await.unwrap();
    assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(str::from_utf8(reply.body()).unwrap().contains("<Code>SlowDown</Code>"));

    let reply = ask(proxy.address(), request(Method::HEAD, "/b/1", "")).await.unwrap();
    assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE);

    let reply = ask(proxy.address(), dynamodb("PutItem", &Value::Null)).await.unwrap();
    assert_eq!(reply.status(), StatusCode::BAD_REQUEST);
    let error: Value = serde_json::from_slice(reply.body()).unwrap();
    assert_eq!(
        error["__type"],
        "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"
    );
    assert!(error["message"].is_string());
    store.has_seen(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_delay_takes_its_time_and_changes_nothing_else() {
    // The clock moves only while everybody waits for it, so what passes is what was drawn.
    let (store, proxy) = misbehaving(Faults {
        delay: Chance::always("Put"),
        delay_max: Duration::from_secs(3600),
        ..Faults::default()
    })
    .await;
    let before = Instant::now();
    assert!(ask(proxy.address(), get("/b/0")).await.is_ok());
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(ask(proxy.address(), put("/b/1")).await.unwrap().body(), "done");
    let passed = before.elapsed();
    let range = Duration::from_secs(1)..=Duration::from_secs(3601);
    assert!(range.contains(&passed), "{passed:?}");
    store.has_seen(&["GET /b/0", "PUT /b/1"]).await;
    assert_eq!(proxy.counts()["PutObject"].faults, 1);
}

#[tokio::test]
async fn an_outage_cuts_every_connection_and_ends() {
    let (store, proxy) = misbehaving(Faults::default()).await;
    let mut before = Client::connect(proxy.address()).await;
    before.ask(put("/b/1")).await.unwrap();
    proxy.set_faults(Faults { outage: true, ..Faults::default() });
    // Idle, it is cut all the same: it never becomes ready for a request again.
    while before.0.ready().await.is_ok() {
        tokio::task::yield_now().await;
    }
    ask(proxy.address(), put("/b/2")).await.unwrap_err();
    proxy.set_faults(Faults::default());
    ask(proxy.address(), put("/b/3")).await.unwrap();
    store.has_seen(&["PUT /b/1", "PUT /b/3"]).await;
}

#[tokio::test]
async fn a_black_hole_answers_when_it_is_switched_off() {
    let (store, proxy) = misbehaving(Faults { black_hole: true, ..Faults::default() }).await;
    let address = proxy.address();
    let client = tokio::spawn(async move { ask(address, put("/b/1")).await });
    while proxy.counts().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!client.is_finished());
    store.has_seen(&[]).await;
    proxy.set_faults(Faults::default());
    assert_eq!(client.await.unwrap().unwrap().body(), "done");
    store.has_seen(&["PUT /b/1"]).await;
}

#[tokio::test]
async fn faults_are_set_and_counts_are_read_over_http_even_in_an_outage() {
    let (store, proxy) = misbehaving(Faults::default()).await;
    let address = proxy.address();
    // The connection that commands goes on where all others are cut.
    let mut admin = Client::connect(address).await;
    let set = |faults: &str| request(Method::PUT, "/__proxy/faults", faults);

    let text = r#"{"late": {"probability": 0.25, "operations": "Put"}, "late_max_ms": 1500,
                   "reply_lost": {"probability": 1, "operations": "Delete", "times": 1}}"#;
    assert_eq!(admin.ask(set(text)).await.unwrap().status(), StatusCode::OK);
    let expected = Faults {
        late: Chance::of(0.25, "Put"),
        late_max: Duration::from_millis(1500),
        reply_lost: Chance::once("Delete"),
        ..Faults::default()
    };
    assert_eq!(*proxy.proxy.faults.borrow(), expected);
    let shown = ask(address, get("/__proxy/faults")).await.unwrap();
    assert_eq!(serde_json::from_slice::<Faults>(shown.body()).unwrap(), expected);
    ask(address, request(Method::DELETE, "/b/1", "")).await.unwrap_err();

    let counts = ask(address, get("/__proxy/counts")).await.unwrap();
    let counts: Value = serde_json::from_slice(counts.body()).unwrap();
    assert_eq!(counts["DeleteObject"]["requests"], 1);
    assert_eq!(counts["DeleteObject"]["faults"], 1);

    assert_eq!(admin.ask(set(r#"{"outage": true}"#)).await.unwrap().status(), StatusCode::OK);
    ask(address, put("/b/2")).await.unwrap_err();
    // So does a new one.
    ask(address, request(Method::DELETE, "/__proxy/counts", "")).await.unwrap();
    assert!(proxy.counts().is_empty());
    assert_eq!(admin.ask(set("{}")).await.unwrap().status(), StatusCode::OK);
    ask(address, put("/b/3")).await.unwrap();
    store.has_seen(&["DELETE /b/1", "PUT /b/3"]).await;
}

#[tokio::test]
async fn faults_that_make_no_sense_are_refused_and_change_nothing() {
    let faults = Faults { reply_lost: Chance::of(0.5, "Put"), ..Faults::default() };
    let (store, proxy) = misbehaving(faults.clone()).await;
    for nonsense in [
        "",
        r#"{"latte": {"probability": 1}}"#,
        r#"{"throttled": {"probability": 1.5}}"#,
        r#"{"late": {"probability": 1}}"#,
        r#"{"delay": {"probability": 1}}"#,
        r#"{"burst": {"probability": 1}}"#,
    ] {
        let set = request(Method::PUT, "/__proxy/faults", nonsense);
        let reply = ask(proxy.address(), set).await.unwrap();
        assert_eq!(reply.status(), StatusCode::BAD_REQUEST, "{nonsense}");
        assert_eq!(*proxy.proxy.faults.borrow(), faults, "{nonsense}");
    }
    let reply = ask(proxy.address(), get("/__proxy/elsewhere")).await.unwrap();
    assert_eq!(reply.status(), StatusCode::NOT_FOUND);
    store.has_seen(&[]).await;
}
