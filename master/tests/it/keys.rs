//! Concurrency keys over the API.

use serde_json::json;

use crate::support::TestMaster;

#[test]
fn keys_have_limits_that_survive_a_restart() {
    let mut master = TestMaster::start();
    let put = |master: &TestMaster, name: &str, body: &str| {
        master.client.request("PUT", &format!("/api/v2/keys/{name}"), &[], body.as_bytes())
    };
    let key = put(&master, "api", r#"{"limit": 3, "rate": {"count": 10, "per_ms": 1000}}"#).expect(200);
    assert_eq!(
        (&key["limit"], &key["rate"]["count"], &key["configured"]),
        (&json!(3), &json!(10), &json!(true))
    );
    for wrong in [r#"{"limit": 0}"#, r#"{"rate": {"count": 1, "per_ms": 0}}"#, r#"{"limits": 1}"#, "[]"] {
        put(&master, "api", wrong).expect(422);
    }
    master.client.submit(r#"{"kind": "noop", "concurrency_keys": ["db", "api"]}"#);
    master.restart();
    let keys = master.client.get("/api/v2/keys").expect(200);
    let names: Vec<_> = keys["keys"].as_array().expect("keys").iter().map(|key| &key["name"]).collect();
    assert_eq!(names, [&json!("api"), &json!("db")]);
    assert_eq!((&keys["keys"][0]["limit"], &keys["keys"][1]["waiting"]), (&json!(3), &json!(1)));
    master.client.request("DELETE", "/api/v2/keys/api", &[], b"").expect(200);
    assert_eq!(master.client.get("/api/v2/keys/api").expect(200)["configured"], false);
    master.client.request("DELETE", "/api/v2/keys/none", &[], b"").expect(404);
    master.client.post("/api/v2/tasks", r#"{"kind": "noop", "concurrency_keys": [""]}"#).expect(422);
}
