//! Schedules over the API.

use serde_json::json;

use crate::support::TestMaster;

#[test]
fn a_schedule_begins_its_work_and_survives_a_restart() {
    let mut master = TestMaster::start();
    let put = |master: &TestMaster, name: &str, body: &str| {
        master.client.request("PUT", &format!("/api/v2/schedules/{name}"), &[], body.as_bytes())
    };
    // Every second: it fires within the test.
    let view = put(&master, "tick", r#"{"cron": "* * * * * *", "task": {"title": "tick"}}"#).expect(200);
    assert_eq!(
        (&view["timezone"], &view["catch_up"], &view["fired"]),
        (&json!("UTC"), &json!("skip"), &json!(0))
    );
    master.client.until("/api/v2/schedules/tick", |view| view["fired"].as_u64() >= Some(1));
    master.client.until("/api/v2/tasks", |page| page["tasks"][0]["title"] == "tick");
    master.client.post("/api/v2/schedules/tick/pause", "").expect(200);
    let nightly = json!({"cron": "0 3 * * *", "timezone": "Europe/Berlin", "workflow": {"version": 1, "name": "n", "tasks": {"a": {}}}});
    put(&master, "nightly", &nightly.to_string()).expect(200);
    master.restart();
    let schedules = master.client.get("/api/v2/schedules").expect(200);
    assert_eq!(schedules["schedules"][0]["name"], "nightly");
    assert_eq!(schedules["schedules"][1]["paused"], true);
    let view = master.client.post("/api/v2/schedules/nightly/trigger", "").expect(200);
    assert_eq!(view["fired"], 1);
    assert_eq!(master.client.get("/api/v2/runs/1").expect(200)["name"], "n");
    let events = master.client.get("/api/v2/events?subject=schedule:nightly").expect(200);
    assert_eq!(events["events"][1]["data"]["run"], 1);
    master.client.request("DELETE", "/api/v2/schedules/nightly", &[], b"").expect(200);
    master.client.request("DELETE", "/api/v2/schedules/nightly", &[], b"").expect(404);
    master.client.post("/api/v2/schedules/none/pause", "").expect(404);
}

#[test]
fn a_schedule_that_never_fires_is_refused() {
    let master = TestMaster::start();
    for (body, pointer) in [
        (r#"{"cron": "0 0 30 2 *", "task": {}}"#, "/cron"),
        (r#"{"cron": "hourly", "task": {}}"#, "/cron"),
        (r#"{"cron": "@daily", "timezone": "Nowhere", "task": {}}"#, "/timezone"),
        (r#"{"cron": "@daily", "task": {"kind": "dance"}}"#, "/task"),
        (
            r#"{"cron": "@daily", "workflow": "version: 1\ntasks: {a: {needs: b}}"}"#,
            "/workflow/tasks/a/needs",
        ),
    ] {
        let answer = master.client.request("PUT", "/api/v2/schedules/s", &[], body.as_bytes());
        let problem = answer.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    assert_eq!(master.client.get("/api/v2/schedules").expect(200)["schedules"], json!([]));
}
