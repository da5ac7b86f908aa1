//! `docs/PROTOCOL.md` says what the code says.

use std::collections::BTreeSet;

use agentflow_protocol::api::{EventView, Events};
use agentflow_protocol::worker::{FromWorker, ToWorker};
use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/PROTOCOL.md");

/// The examples of that kind.
fn examples(kind: &str) -> Vec<&'static str> {
    let fence = format!("```json {kind}\n");
    PAGE.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// Everything that the example says must be understood.
#[track_caller]
fn check(said: &Value, understood: &Value) {
    match (said, understood) {
        (Value::Object(said), Value::Object(understood)) => {
            for (field, value) in said {
                match understood.get(field) {
                    Some(found) => check(value, found),
                    // Defaults are left out.
                    None => assert!(
                        [Value::Null, Value::Bool(false), Value::Array(vec![])].contains(value),
                        "{field} is not understood"
                    ),
                }
            }
        }
        (Value::Array(said), Value::Array(understood)) => {
            assert_eq!(said.len(), understood.len());
            said.iter().zip(understood).for_each(|(said, understood)| check(said, understood));
        }
        _ => assert_eq!(said, understood),
    }
}

#[test]
fn every_frame_has_an_example_that_is_right() {
    let mut words = BTreeSet::new();
    for text in examples("from-worker") {
        let said: Value = serde_json::from_str(text).expect(text);
        let frame: FromWorker = serde_json::from_str(text).expect(text);
        check(&said, &serde_json::to_value(&frame).expect("plain data"));
        words.insert(said["type"].as_str().expect("a type").to_owned());
    }
    let all = ["asks", "draining", "goodbye", "heartbeat", "hello", "progress", "reports"];
    assert_eq!(words.iter().map(String::as_str).collect::<Vec<_>>(), all);

    let mut words = BTreeSet::new();
    for text in examples("to-worker") {
        let said: Value = serde_json::from_str(text).expect(text);
        let frame = ToWorker::read(text).expect(text);
        check(&said, &serde_json::to_value(&frame).expect("plain data"));
        words.insert(said["type"].as_str().expect("a type").to_owned());
    }
    let all = [
        "ack",
        "answers",
        "assign",
        "cancel",
        "drain",
        "drop",
        "heartbeat_ack",
        "log_ack",
        "refused",
        "restarting",
        "return",
        "welcome",
    ];
    assert_eq!(words.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

#[test]
fn events_have_the_shape_that_is_written() {
    for text in examples("event") {
        let said: Value = serde_json::from_str(text).expect(text);
        let event: EventView = serde_json::from_str(text).expect(text);
        check(&said, &serde_json::to_value(&event).expect("plain data"));
    }
    for text in examples("page") {
        serde_json::from_str::<Events>(text).expect(text);
    }
}
