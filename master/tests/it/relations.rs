//! Plain tasks that wait for others, over the API.

use serde_json::{Value, json};

use crate::support::{Client, TestMaster};

impl Client {
    fn held(&self, titles: &[&str]) {
        for title in titles {
            self.submit(&json!({"title": title, "hold": true}).to_string());
        }
    }

    fn relate(&self, before: u64, after: u64, relation: &str) -> crate::support::Answer {
        let body = json!({"predecessor": before, "successor": after, "type": relation});
        self.post("/api/v2/relationships", &body.to_string())
    }

    fn status(&self, id: u64) -> String {
        let task = self.get(&format!("/api/v2/tasks/{id}")).expect(200);
        task["status"].as_str().expect("a status").to_owned()
    }
}

#[test]
fn the_users_examples_are_planned() {
    let master = TestMaster::start();
    master.client.held(&["Build", "Test"]);
    let relation = master.client.relate(1, 2, "dependency").expect(201);
    assert_eq!(relation, json!({"predecessor": 1, "successor": 2, "type": "dependency"}));
    let plan = |query: &str| master.client.get(&format!("/api/v2/plan?{query}")).expect(200)["plan"].clone();
    assert_eq!(plan("group=default&mode=dag"), json!([[1], [2]]));
    master.client.held(&["left", "right"]);
    for (before, after) in [(1, 3), (2, 4), (3, 4)] {
        master.client.relate(before, after, "dependency").expect(201);
    }
    assert_eq!(plan(""), json!([[1], [2, 3], [4]]));
    assert_eq!(plan("tasks=1,2,3,4"), json!([[1], [2, 3], [4]]));
    assert_eq!(plan("mode=sequential"), json!([[1], [2], [3], [4]]));
    assert_eq!(plan("tasks=2,3&mode=parallel"), json!([[2, 3]]));
    master.client.get("/api/v2/plan?mode=parallel").expect(409);
    for wrong in ["mode=fast", "tasks=x", "tasks=1&group=default", "group="] {
        master.client.get(&format!("/api/v2/plan?{wrong}")).expect(422);
    }
    let relations = master.client.get("/api/v2/tasks/4/relationships").expect(200);
    let before: Vec<&Value> = relations["relationships"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| &row["predecessor"])
        .collect();
    assert_eq!(before, [&json!(2), &json!(3)]);
}

#[test]
fn held_tasks_go_in_their_order_and_survive_a_restart() {
    let mut master = TestMaster::start();
    master.client.held(&["a", "b", "c"]);
    master.client.relate(1, 2, "dependency").expect(201);
    master.client.relate(2, 3, "sequential").expect(201);
    master.client.post("/api/v2/tasks/2/release", "").expect(200);
    master.client.post("/api/v2/tasks/3/release", "").expect(200);
    let why = master.client.get("/api/v2/tasks/3/why").expect(200);
    assert_eq!(why["reasons"][0]["held_by"], json!(["task:2"]));
    master.restart();
    assert_eq!(master.client.status(1), "blocked");
    let why = master.client.get("/api/v2/tasks/1/why").expect(200);
    assert_eq!(why["reasons"][0]["code"], "hold");
    // Milestones: they complete as soon as they may.
    assert_eq!(master.client.post("/api/v2/tasks/1/release", "").expect(200)["status"], "completed");
    assert_eq!((master.client.status(2), master.client.status(3)), ("completed".into(), "completed".into()));
    master.client.post("/api/v2/tasks/1/release", "").expect(409);
}

#[test]
fn what_cannot_be_related_is_refused_and_says_why() {
    let master = TestMaster::start();
    master.client.held(&["a", "b", "c"]);
    master.client.relate(1, 2, "dependency").expect(201);
    master.client.relate(2, 3, "context").expect(201);
    let problem = master.client.relate(3, 1, "dependency").expect(409);
    assert_eq!(problem["type"], "urn:agentflow:problem:cycle");
    assert!(problem["detail"].as_str().expect("text").contains("1 -> 2 -> 3 -> 1"), "{problem}");
    master.client.relate(2, 2, "dependency").expect(409);
    master.client.relate(1, 3, "parallel").expect(409);
    master.client.relate(1, 9, "dependency").expect(404);
    master.client.relate(9, 1, "dependency").expect(404);
    master.client.relate(1, 2, "before").expect(422);
    let done = master.client.submit(r#"{"title": "done"}"#);
    master.client.relate(1, done, "dependency").expect(409);
    for body in [r#"{"predecessor": 1}"#, r#"{"predecessor": "x", "successor": 1}"#, "[]"] {
        master.client.post("/api/v2/relationships", body).expect(422);
    }
}

#[test]
fn needs_are_known_from_the_start() {
    let master = TestMaster::start();
    master.client.held(&["a"]);
    let done = master.client.submit(r#"{"title": "done"}"#);
    let waits = master.client.submit(&json!({"needs": [1, "TASK-00000002"]}).to_string());
    assert_eq!((done, master.client.status(waits)), (2, "blocked".into()));
    let ready = master.client.submit(&json!({"needs": [done]}).to_string());
    assert_eq!(master.client.status(ready), "completed");
    master.client.post("/api/v2/tasks/1/cancel", "").expect(200);
    let skipped = master.client.get(&format!("/api/v2/tasks/{waits}")).expect(200);
    assert_eq!(skipped["status"], "skipped");
    assert!(skipped["error"].as_str().expect("text").contains("task 1"), "{skipped}");
    let never = master.client.submit(&json!({"needs": [waits]}).to_string());
    assert_eq!(master.client.status(never), "skipped");
    master.client.post("/api/v2/tasks", r#"{"needs": [99]}"#).expect(404);
    master.client.post("/api/v2/tasks", r#"{"needs": [0]}"#).expect(422);
    master.client.post("/api/v2/tasks", r#"{"needs": "1"}"#).expect(422);
}
