//! Locks over the API: taken, listed, renewed, given back, broken, and refused.

use agentflow_core::limits;
use serde_json::{Value, json};

use crate::continuing::{begin, worker_of};
use crate::support::{Answer, Client, TestMaster};
use crate::workers::finished;

const REPO: &str = "https://example.com/team/app.git";

impl Client {
    /// Asks for locks.
    pub(crate) fn lock(&self, body: &Value) -> Answer {
        self.post("/api/v2/locks", &body.to_string())
    }

    /// Locks paths for somebody.
    #[track_caller]
    pub(crate) fn locked(&self, owner: &str, paths: &[&str]) -> Value {
        self.lock(&lock(owner, paths)).expect(201)
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, &[], b"")
    }

    fn lock_keyed(&self, key: &str, body: &Value) -> Answer {
        self.request("POST", "/api/v2/locks", &[("idempotency-key", key)], body.to_string().as_bytes())
    }

    fn verify(&self, paths: &[&str], fences: &[u64]) -> Answer {
        let body = json!({"repo": REPO, "paths": paths, "fences": fences});
        self.post("/api/v2/locks/verify", &body.to_string())
    }
}

/// The body of a request.
pub(crate) fn lock(owner: &str, paths: &[&str]) -> Value {
    json!({"repo": REPO, "owner": owner, "paths": paths})
}

pub(crate) fn with(body: &Value, more: &Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body
}

/// Where a lock is.
pub(crate) fn path_of(lock: &Value) -> String {
    format!("/api/v2/locks/{}", lock["id"].as_str().expect("an id"))
}

fn fence(lock: &Value) -> u64 {
    lock["fence"].as_u64().expect("a number")
}

fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().expect("errors").iter();
    errors.map(|error| error["pointer"].as_str().expect("a text")).collect()
}

fn kind(problem: &Value) -> &str {
    let kind = problem["type"].as_str().expect("a text");
    kind.strip_prefix("urn:agentflow:problem:").expect("ours")
}

#[test]
fn a_lock_is_granted_shown_and_given_back() {
    let mut master = TestMaster::start();
    let wanted = with(
        &lock("alice", &["src/b.rs", "/src/a.rs", "docs/"]),
        &json!({"reason": "tidying", "ttl_ms": 60_000}),
    );
    let answer = master.client.lock(&wanted);
    let location = answer.headers["location"].to_str().expect("a text").to_owned();
    let mut granted = answer.expect(201);
    assert_eq!(location, path_of(&granted));
    assert_eq!(granted["id"].as_str().map(str::len), Some(32));
    let path = |path: &str| json!({"path": path, "mode": "write"});
    let mut view = json!({"fence": 1, "repo": "example.com/team/app", "owner": "alice", "reason": "tidying",
        "ttl_ms": 60_000, "paths": [path("docs/**"), path("src/a.rs"), path("src/b.rs")]});
    for member in ["id", "acquired_at", "expires_at"] {
        view[member] = granted[member].clone();
        assert!(view[member].is_string(), "{granted}");
    }
    assert_eq!(granted, view);
    master.restart();
    // It lasts as long as before from when the master is back.
    let shown = master.client.get(&location).expect(200);
    granted["expires_at"] = shown["expires_at"].clone();
    assert_eq!(shown, granted);
    master.client.delete(&format!("{location}?fence=2")).expect(409);
    master.client.delete(&format!("{location}?fence=1&owner=bob")).expect(409);
    let gone = master.client.delete(&format!("{location}?fence=1&owner=alice"));
    assert_eq!((gone.status, gone.text.as_str()), (204, ""));
    master.client.get(&location).expect(404);
    let again = master.client.delete(&format!("{location}?fence=1")).expect(409);
    assert_eq!(kind(&again), "stale");
    assert!(again["detail"].as_str().expect("a text").contains("released"), "{again}");
    master.client.delete("/api/v2/locks/00000000000000000000000000000000").expect(404);
    master.client.delete("/api/v2/locks/5").expect(404);
    assert_eq!(fence(&master.client.locked("bob", &["src/a.rs"])), 2, "it rises over a restart");
}

#[test]
fn who_holds_a_path_is_named_to_whoever_wants_it() {
    let master = TestMaster::start();
    let held = master.client.locked("alice", &["src/**"]);
    let problem = master.client.lock(&lock("bob", &["README.md", "src/a.rs"])).expect(409);
    assert_eq!(kind(&problem), "locked");
    let holder = json!({"id": held["id"], "fence": 1, "owner": "alice", "path": "src/**", "mode": "write",
        "expires_at": held["expires_at"]});
    assert_eq!((&problem["holders"], &problem["position"]), (&json!([holder]), &json!(0)));
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("alice")), "{problem}");
    // All paths or none.
    master.client.locked("carol", &["README.md"]);
    // Two shells of one person exclude each other, too.
    master.client.lock(&lock("alice", &["src/a.rs"])).expect(409);
    // Readers share.
    let read = |owner: &str, path: &str| {
        with(&lock(owner, &[]), &json!({"paths": [{"path": path, "mode": "read"}]}))
    };
    master.client.lock(&read("alice", "docs/**")).expect(201);
    master.client.lock(&read("bob", "docs/a.md")).expect(201);
    master.client.lock(&lock("carol", &["docs/a.md"])).expect(409);
    let other = json!({"repo": "other", "owner": "bob", "paths": ["src/a.rs"]});
    assert_eq!(fence(&master.client.lock(&other).expect(201)), 1, "another repository counts by itself");
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let master = TestMaster::start();
    let good = lock("alice", &["a"]);
    let refused = |more: Value| {
        let problem = master.client.lock(&with(&good, &more)).expect(422);
        pointers(&problem).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        refused(json!({"paths": ["src/**", {"path": "src/a.rs", "mode": "read"}]})),
        ["/paths/1/path"]
    );
    assert_eq!(
        refused(json!({"paths": ["../a", "/etc//x", "//etc/x", "a\0b", ""]})),
        ["/paths/0", "/paths/2", "/paths/3", "/paths/4"]
    );
    assert_eq!(refused(json!({"paths": []})), ["/paths"]);
    assert_eq!(refused(json!({"ttl_ms": 0})), ["/ttl_ms"]);
    assert_eq!(refused(json!({"ttl_ms": 365_u64 * 24 * 3_600_000})), ["/ttl_ms"], "a year");
    assert_eq!(refused(json!({"repo": "/srv/app"})), ["/repo"], "a path of one machine");
    assert_eq!(refused(json!({"task_id": 1})), ["/owner"]);
    assert_eq!(refused(json!({"owner": "task:1"})), ["/owner"]);
    assert_eq!(refused(json!({"owner": null})), ["/owner"]);
    assert_eq!(refused(json!({"reason": "x".repeat(501)})), ["/reason"]);
    assert_eq!(refused(json!({"priority": "urgent"})), ["/priority"]);
    assert_eq!(refused(json!({"colour": "red"})), ["/colour"]);
    let many: Vec<String> = (0..=limits::LOCK_PATHS).map(|n| format!("src/{n}.rs")).collect();
    assert_eq!(refused(json!({ "paths": many })), ["/paths"]);
    master.client.lock(&with(&good, &json!({"paths": many[1..]}))).expect(201);
    master.client.lock(&json!({"repo": REPO, "task_id": 7, "paths": ["a"]})).expect(404);
    master.client.post("/api/v2/locks", "[]").expect(422);
    master.client.post("/api/v2/locks?wait=1", &good.to_string()).expect(422);
    let page = master.client.get("/api/v2/locks").expect(200);
    assert_eq!(page["locks"].as_array().map(Vec::len), Some(1), "nothing but the one: {page}");
}

#[test]
fn everything_may_be_locked_with_a_warning() {
    let master = TestMaster::start();
    let all = master.client.locked("alice", &["/"]);
    assert_eq!(all["paths"][0]["path"], "**");
    assert!(all["warnings"][0].as_str().is_some_and(|text| text.contains("everything")), "{all}");
    assert_eq!(master.client.get(&path_of(&all)).expect(200).get("warnings"), None);
    master.client.lock(&lock("bob", &["x"])).expect(409);
}

#[test]
fn locks_are_listed_by_what_they_are() {
    let master = TestMaster::start();
    for (owner, path) in [("alice", "src/a.rs"), ("bob", "src/b/**"), ("alice", "docs/x.md")] {
        master.client.locked(owner, &[path]);
    }
    let task = master.client.submit(r#"{"command": "x"}"#);
    master.client.lock(&json!({"repo": "other", "task_id": task, "paths": ["src/a.rs"]})).expect(201);
    let listed = |query: &str| {
        let page = master.client.get(&format!("/api/v2/locks{query}")).expect(200);
        let locks = page["locks"].as_array().expect("a list").iter();
        let text =
            |lock: &Value| format!("{} {}", lock["owner"].as_str().unwrap_or(""), lock["paths"][0]["path"]);
        locks.map(|lock| text(lock).replace('"', "")).collect::<Vec<_>>()
    };
    let own = format!("task:{task} src/a.rs");
    assert_eq!(listed(""), ["alice src/a.rs", "bob src/b/**", "alice docs/x.md", own.as_str()]);
    assert_eq!(listed("?owner=alice"), ["alice src/a.rs", "alice docs/x.md"]);
    assert_eq!(listed("?repo=https://example.com/team/app&path=src/"), ["alice src/a.rs", "bob src/b/**"]);
    assert_eq!(listed("?path=src/b/c.rs"), ["bob src/b/**"]);
    assert_eq!(listed(&format!("?task_id={task}")), [own.as_str()]);
    assert_eq!(listed(&format!("?owner=task:{task}&repo=other")), [own.as_str()]);
    assert_eq!(listed("?repo=none"), [""; 0]);
    let first = master.client.get("/api/v2/locks?limit=3").expect(200);
    let cursor = first["next_cursor"].as_str().expect("there are more");
    assert_eq!(listed(&format!("?limit=3&cursor={cursor}")), [own.as_str()]);
    let id = first["locks"][1]["id"].as_str().expect("an id");
    assert_eq!(listed(&format!("?id={id}")), ["bob src/b/**"]);
    for wrong in [
        "?path=..",
        "?repo=/srv",
        "?owner=",
        "?task_id=x",
        "?owner=a&task_id=1",
        "?id=5",
        "?limit=0",
        "?cursor=x",
        "?x=1",
    ] {
        master.client.get(&format!("/api/v2/locks{wrong}")).expect(422);
    }
}

#[test]
fn a_lock_is_renewed_until_it_is_lost() {
    let master = TestMaster::start();
    let held = master.client.locked("alice", &["a"]);
    let renew = |body: Value| master.client.post(&format!("{}/renew", path_of(&held)), &body.to_string());
    let renewed = renew(json!({"fence": 1, "ttl_ms": 7_200_000})).expect(200);
    assert_eq!((&renewed["fence"], &renewed["ttl_ms"]), (&json!(1), &json!(7_200_000)));
    assert!(renewed["expires_at"].as_str() > held["expires_at"].as_str(), "{renewed}");
    assert_eq!(renew(json!({"fence": 1})).expect(200)["ttl_ms"], 7_200_000, "as before");
    let forever = renew(json!({"fence": 1, "ttl_ms": null})).expect(200);
    assert_eq!((&forever["ttl_ms"], &forever["expires_at"]), (&Value::Null, &Value::Null));
    assert_eq!(kind(&renew(json!({"fence": 2})).expect(409)), "stale");
    assert_eq!(pointers(&renew(json!({"fence": 1, "ttl_ms": 0})).expect(422)), ["/ttl_ms"]);
    renew(json!({})).expect(422);
    let short = with(&lock("bob", &["b"]), &json!({"ttl_ms": 1}));
    let lost = master.client.lock(&short).expect(201);
    master.client.until("/api/v2/events?limit=1000", |page| {
        page["events"]
            .as_array()
            .is_some_and(|events| events.iter().any(|event| event["type"] == "lock.expired"))
    });
    let problem = master.client.post(&format!("{}/renew", path_of(&lost)), r#"{"fence": 2}"#).expect(409);
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("expired")), "{problem}");
    master.client.locked("carol", &["b"]);
}

#[test]
fn an_operator_breaks_a_lock_with_a_reason() {
    let master = TestMaster::start();
    let held = master.client.locked("alice", &["a"]);
    let break_it = |body: &str| master.client.post(&format!("{}/break", path_of(&held)), body);
    assert_eq!(pointers(&break_it(r#"{"reason": " "}"#).expect(422)), ["/reason"]);
    break_it("{}").expect(422);
    let broken = break_it(r#"{"reason": "on holiday"}"#).expect(200);
    assert_eq!(broken["id"], held["id"]);
    let problem = master.client.delete(&path_of(&held)).expect(409);
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("on holiday")), "{problem}");
    break_it(r#"{"reason": "again"}"#).expect(409);
    assert_eq!(fence(&master.client.locked("bob", &["a"])), 2);
    let problem = master.client.verify(&["a"], &[1]).expect(409);
    assert_eq!(problem["uncovered"][0]["path"], "a");
}

#[test]
fn what_an_owner_holds_is_given_back_by_name() {
    let master = TestMaster::start();
    for paths in [&["a"][..], &["b"], &["c", "d"]] {
        master.client.locked("alice", paths);
    }
    master.client.locked("bob", &["e"]);
    let released = |query: &str| master.client.delete(&format!("/api/v2/locks?{query}"));
    assert_eq!(released("owner=alice&path=a").expect(200), json!({"released": 1}));
    assert_eq!(released("owner=alice&path=a").expect(200), json!({"released": 0}));
    let together = released("owner=alice&path=c").expect(409);
    assert!(together["detail"].as_str().is_some_and(|text| text.contains("id")), "{together}");
    assert_eq!(released("owner=alice&repo=other").expect(200), json!({"released": 0}));
    assert_eq!(released("owner=alice").expect(200), json!({"released": 2}));
    assert_eq!(released("task_id=9").expect(200), json!({"released": 0}));
    for wrong in ["", "path=a", "owner=a&task_id=1", "owner=a&path=..", "owner=a&all=1"] {
        released(wrong).expect(422);
    }
    let page = master.client.get("/api/v2/locks").expect(200);
    assert_eq!(page["locks"].as_array().map(Vec::len), Some(1));
}

#[test]
fn many_are_locked_and_given_back_at_once() {
    let master = TestMaster::start();
    let requests = [lock("alice", &["a"]), lock("bob", &["b"]), lock("bob", &["a"])];
    let answer = master.client.lock(&json!({ "requests": requests })).expect(201);
    let results = answer["results"].as_array().expect("a list");
    assert_eq!((fence(&results[0]["lock"]), fence(&results[1]["lock"])), (1, 2));
    assert_eq!(
        (kind(&results[2]["problem"]), &results[2]["problem"]["holders"][0]["owner"]),
        ("locked", &json!("alice"))
    );
    let locks = [&results[0]["lock"], &results[1]["lock"]];
    let entry = |at: usize, fence: u64| json!({"id": locks[at]["id"], "fence": fence});
    let release =
        |locks: Value| master.client.post("/api/v2/locks/release", &json!({ "locks": locks }).to_string());
    let nobody = "00000000000000000000000000000000";
    let answer = release(json!([entry(0, 1), entry(1, 7), {"id": nobody}])).expect(200);
    assert_eq!(answer["released"], 1);
    let refused = answer["refused"].as_array().expect("a list");
    let of = |at: usize| (&refused[at]["id"], &refused[at]["problem"]["status"]);
    assert_eq!((of(0), of(1)), ((&locks[1]["id"], &json!(409)), (&json!(nobody), &json!(404))));
    let again = release(json!([entry(0, 1), {"id": locks[1]["id"]}])).expect(200);
    assert_eq!((&again["released"], &again["refused"][0]["problem"]["status"]), (&json!(1), &json!(409)));
    assert_eq!(pointers(&release(json!([{"id": "5"}])).expect(422)), ["/locks/0/id"]);
    release(json!([])).expect(422);
    let wrong =
        json!({"requests": [lock("a", &["a"]), with(&lock("a", &["a", "a"]), &json!({"wait_ms": 1}))]});
    let problem = master.client.lock(&wrong).expect(422);
    assert_eq!(pointers(&problem), ["/requests/1/wait_ms", "/requests/1/paths/1"]);
    let too_many = vec![lock("a", &["a"]); limits::LOCK_REQUESTS + 1];
    master.client.lock(&json!({ "requests": too_many })).expect(422);
    master.client.lock(&json!({ "requests": [] })).expect(422);
}

#[test]
fn the_same_key_gets_the_same_lock() {
    let mut master = TestMaster::start();
    let body = lock("alice", &["a"]);
    let first = master.client.lock_keyed("k", &body).expect(201);
    assert_eq!(master.client.lock_keyed("k", &body).expect(201)["id"], first["id"]);
    let waits = with(&body, &json!({"wait_ms": 5}));
    assert_eq!(master.client.lock_keyed("k", &waits).expect(201)["id"], first["id"], "whatever its wait_ms");
    let field = with(&body, &json!({"idempotency_key": "k"}));
    assert_eq!(master.client.lock(&field).expect(201)["id"], first["id"]);
    assert_eq!(pointers(&master.client.lock_keyed("other", &field).expect(422)), ["/idempotency_key"]);
    assert_eq!(kind(&master.client.lock_keyed("k", &lock("alice", &["b"])).expect(409)), "idempotency_key");
    let requests = json!({"requests": [lock("bob", &["b"]), lock("bob", &["a"]), field]});
    let many = master.client.lock_keyed("m", &requests).expect(201);
    assert_eq!(many["results"][2]["lock"]["id"], first["id"], "its own key counts");
    assert_eq!(kind(&many["results"][1]["problem"]), "locked");
    master.restart();
    assert_eq!(master.client.lock_keyed("k", &body).expect(201)["id"], first["id"]);
    assert_eq!(kind(&master.client.lock_keyed("k", &lock("alice", &["b"])).expect(409)), "idempotency_key");
    assert_eq!(
        master.client.lock_keyed("m/0", &lock("bob", &["b"])).expect(201)["id"],
        many["results"][0]["lock"]["id"]
    );
    let again = master.client.lock_keyed("m", &requests).expect(201);
    assert_eq!(again["results"][0]["lock"]["id"], many["results"][0]["lock"]["id"]);
    assert_eq!(again["results"][2]["lock"]["id"], first["id"]);
    // Nobody is told that he holds what he has given back.
    master.client.delete(&path_of(&first));
    assert_eq!(kind(&master.client.lock_keyed("k", &body).expect(409)), "stale");
    master.restart();
    let lost = master.client.lock_keyed("k", &body).expect(409);
    assert!(lost["detail"].as_str().is_some_and(|text| text.contains("released")), "{lost}");
}

#[test]
fn a_change_is_verified_by_the_history_of_locks() {
    let mut master = TestMaster::start();
    master.client.verify(&["a"], &[1]).expect(404);
    let alice = master.client.locked("alice", &["src/**"]);
    let bob = master.client.locked("bob", &["docs/**"]);
    assert_eq!(
        master.client.verify(&["src/a.rs", "src/b/c.rs"], &[fence(&alice)]).expect(200),
        json!({"covered": true})
    );
    master.client.delete(&path_of(&alice));
    master.restart();
    master.client.verify(&["src/a.rs"], &[fence(&alice)]).expect(200);
    let problem = master.client.verify(&["src/a.rs", "docs/x", "y"], &[fence(&alice)]).expect(409);
    assert_eq!(kind(&problem), "uncovered");
    let paths: Vec<&Value> =
        problem["uncovered"].as_array().expect("a list").iter().map(|one| &one["path"]).collect();
    assert_eq!(paths, ["docs/x", "y"]);
    master.client.verify(&["src/a.rs", "docs/x"], &[fence(&alice), fence(&bob)]).expect(200);
    master.client.locked("alice", &["src/a.rs"]);
    master.client.verify(&["src/a.rs"], &[fence(&alice)]).expect(200);
    let carol = master.client.locked("carol", &["src/b/**"]);
    master.client.verify(&["src/a.rs"], &[fence(&alice)]).expect(200);
    let problem = master.client.verify(&["src/b/c.rs"], &[fence(&alice)]).expect(409);
    assert!(
        problem["uncovered"][0]["reason"].as_str().is_some_and(|text| text.contains("carol")),
        "{problem}"
    );
    master.client.verify(&["src/b/c.rs"], &[fence(&carol)]).expect(200);
    let ask = |body: Value| master.client.post("/api/v2/locks/verify", &body.to_string());
    ask(json!({"repo": REPO, "paths": [{"path": "docs/x"}], "fence": fence(&bob)})).expect(200);
    assert_eq!(
        pointers(&ask(json!({"repo": REPO, "paths": ["../x"], "fence": 1})).expect(422)),
        ["/paths/0"]
    );
    assert_eq!(pointers(&ask(json!({"repo": REPO, "paths": ["x"]})).expect(422)), ["/fence"]);
    assert_eq!(pointers(&ask(json!({"repo": "", "paths": ["x"], "fence": 1})).expect(422)), ["/repo"]);
}

#[test]
fn a_long_history_is_read_in_pages() {
    let master = TestMaster::start();
    let requests: Vec<Value> = (0..999).map(|n| lock("alice", &[&format!("{n}")])).collect();
    for _ in 0..2 {
        let answer = master.client.lock(&json!({ "requests": requests })).expect(201);
        assert!(answer["results"][998]["lock"].is_object(), "{}", answer["results"][998]);
        master.client.delete("/api/v2/locks?owner=alice").expect(200);
    }
    master.client.verify(&["5"], &[6]).expect(200);
    master.client.locked("bob", &["5"]);
    master.client.verify(&["5"], &[6]).expect(409);
    master.client.verify(&["6"], &[7]).expect(200);
}

#[test]
fn a_task_has_locks_as_long_as_its_attempt() {
    let master = TestMaster::start();
    let mut worker = worker_of(master.address(), "w", 1);
    let fields = json!({"command": "x", "locks": ["src/**", {"path": "docs/a.md", "mode": "read"}]});
    let task = master.client.post("/api/v2/tasks", &fields.to_string()).expect(201);
    let paths = json!([{"path": "docs/a.md", "mode": "read"}, {"path": "src/**", "mode": "write"}]);
    assert_eq!(task["locks"], json!([{"repo": "default", "paths": paths}]));
    let (key, assigned) = begin(&mut worker, 1);
    let page = master.client.get(&format!("/api/v2/locks?task_id={}", task["id"])).expect(200);
    let held = &page["locks"][0];
    assert_eq!(
        (&held["task_id"], &held["attempt"], &held["until"]),
        (&task["id"], &json!(1), &json!("attempt"))
    );
    assert_eq!(
        (&held["owner"], &held["expires_at"], &held["ttl_ms"]),
        (&json!("task:1"), &Value::Null, &Value::Null)
    );
    assert_eq!(assigned["locks"], json!([{"id": held["id"], "repo": "default", "fence": 1}]));
    let want = json!({"repo": "default", "owner": "bob", "paths": ["src/a.rs"]});
    assert_eq!(master.client.lock(&want).expect(409)["holders"][0]["owner"], "task:1");
    let problem = master.client.delete(&format!("{}?owner=bob", path_of(held))).expect(409);
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("task:1")), "{problem}");
    // More locks of the task end with its attempt, too.
    let more = json!({"repo": "other", "task_id": 1, "paths": ["x"]});
    assert_eq!(master.client.lock(&more).expect(201)["attempt"], 1);
    worker.send(&json!({"type": "reports", "reports": [finished(2, key)]}));
    worker.text_of("ack");
    assert_eq!(master.client.get("/api/v2/locks").expect(200)["locks"], json!([]));
    master.client.lock(&want).expect(201);
    let late = master.client.lock(&more).expect(409);
    assert!(late["detail"].as_str().is_some_and(|text| text.contains("completed")), "{late}");
}

#[test]
fn locks_of_a_task_are_checked_where_they_are_written() {
    let master = TestMaster::start();
    let wrong = |locks: Value| {
        let body = json!({"command": "x", "locks": locks});
        let problem = master.client.post("/api/v2/tasks", &body.to_string()).expect(422);
        pointers(&problem).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(wrong(json!(["a", {"path": "a"}])), ["/locks/1/path"]);
    assert_eq!(wrong(json!([{"paths": ["../a"]}])), ["/locks/0/paths/0"]);
    let task = master.client.submit(r#"{"command": "x", "locks": "a"}"#);
    let body =
        json!({"new_spec": {"locks": ["b", {"path": "c", "repo": "other"}]}, "upgrade_reason": "more"});
    master.client.post(&format!("/api/v2/tasks/{task}/upgrade"), &body.to_string()).expect(200);
    let locks = master.client.get(&format!("/api/v2/tasks/{task}")).expect(200)["locks"].clone();
    assert_eq!((&locks[0]["paths"][0]["path"], &locks[1]["repo"]), (&json!("b"), &json!("other")));
    let workflow = json!({"version": 1, "vars": {"part": "lib"}, "tasks": {
        "edit": {"run": "x", "locks": ["${{ vars.part }}/**", {"path": "docs/a.md", "mode": "read"}]},
        "bad": {"run": "x", "locks": [{"path": "a", "mode": "mine"}]},
    }});
    let start =
        |workflow: &Value| master.client.post("/api/v2/runs", &json!({ "workflow": workflow }).to_string());
    let problem = start(&workflow).expect(422);
    assert_eq!(pointers(&problem), ["/workflow/tasks/bad/locks/0/mode"]);
    let mut right = workflow.clone();
    right["tasks"].as_object_mut().expect("tasks").remove("bad");
    let run = start(&right).expect(201);
    let node = &run["nodes"][0]["task_id"];
    let shown = master.client.get(&format!("/api/v2/tasks/{node}")).expect(200);
    assert_eq!(shown["locks"][0]["paths"][1]["path"], "lib/**", "{shown}");
}
