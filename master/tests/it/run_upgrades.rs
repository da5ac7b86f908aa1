//! Another workflow for a run over the API: what becomes of its nodes, what is refused, what is left.

use std::collections::VecDeque;

use agentflow_protocol::worker::AttemptKey;
use serde_json::{Value, json};

use crate::continuing::{failed, worker_of};
use crate::runs::nodes;
use crate::socket::Socket;
use crate::support::{Answer, Client, TestMaster};
use crate::workers::{finished, key_of, started};

/// `first` and after it two others.
const OLD: &str = "
version: 1
name: ci
tasks:
  first: {run: one, retry: {max: 1, backoff_ms: 0}}
  second: {run: two, needs: first}
  gone: {run: gone, needs: first}
";

/// The same with other bodies, one node less and one more.
const NEW: &str = "
version: 1
name: ci
tasks:
  first: {run: ONE, retry: {max: 1, backoff_ms: 0}}
  second: {run: TWO, needs: first}
  fresh: {run: three, needs: second}
";

impl Client {
    pub(crate) fn upgrade_run(&self, run: u64, body: &Value) -> Answer {
        self.post(&format!("/api/v2/runs/{run}/upgrade"), &body.to_string())
    }

    pub(crate) fn preview(&self, run: u64, body: &Value) -> Answer {
        self.post(&format!("/api/v2/runs/{run}/upgrade?dry_run=1"), &body.to_string())
    }

    pub(crate) fn run_view(&self, run: u64) -> Value {
        self.get(&format!("/api/v2/runs/{run}")).expect(200)
    }

    fn versions_of_run(&self, run: u64) -> Vec<Value> {
        let list = self.get(&format!("/api/v2/runs/{run}/versions")).expect(200);
        list["versions"].as_array().expect("a list").clone()
    }
}

/// A worker that does what it is told, one step after the other.
pub(crate) struct Hand {
    socket: Socket,
    no: u64,
    given: VecDeque<(String, AttemptKey)>,
}

impl Hand {
    pub(crate) fn of(master: &TestMaster) -> Self {
        Self { socket: worker_of(master.address(), "w1", 1), no: 0, given: VecDeque::new() }
    }

    /// Its next life.
    pub(crate) fn again(master: &TestMaster) -> Self {
        Self { socket: worker_of(master.address(), "w1", 2), no: 0, given: VecDeque::new() }
    }

    /// Waits for the next task, begins it, and says its command.
    pub(crate) fn begin(&mut self) -> (String, AttemptKey) {
        while self.given.is_empty() {
            let assign = self.socket.text_of("assign");
            for task in assign["tasks"].as_array().expect("tasks") {
                let spec = usize::try_from(task["spec"].as_u64().expect("a number")).expect("small");
                let command = assign["specs"][spec]["command"].as_str().expect("a command").to_owned();
                self.given.push_back((command, key_of(&json!({ "tasks": [task] }))));
            }
        }
        let next = self.given.pop_front().expect("not empty");
        self.report(|no| started(no, next.1));
        next
    }

    pub(crate) fn finish(&mut self, key: AttemptKey) {
        self.report(|no| finished(no, key));
    }

    pub(crate) fn fail(&mut self, key: AttemptKey) {
        self.report(|no| failed(no, key));
    }

    fn report(&mut self, report: impl Fn(u64) -> Value) {
        self.no += 1;
        self.socket.send(&json!({"type": "reports", "reports": [report(self.no)]}));
        self.socket.text_of("ack");
    }

    /// Begins the next task, which has that command, and ends it well.
    #[track_caller]
    pub(crate) fn do_next(&mut self, command: &str) {
        let (next, key) = self.begin();
        assert_eq!(next, command);
        self.finish(key);
    }
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().expect("a text")
}

/// `name=fate` of each node, those that are removed last.
pub(crate) fn fates(preview: &Value) -> String {
    let list = |name: &str| preview[name].as_array().expect("a list").clone();
    let nodes = [list("nodes"), list("removed")].concat();
    let text = |node: &Value| {
        format!("{}={}", node["name"].as_str().expect("a name"), node["fate"].as_str().expect("a fate"))
    };
    nodes.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn task_of(run: &Value, name: &str) -> u64 {
    let mut nodes = run["nodes"].as_array().expect("nodes").iter();
    let node = nodes.find(|node| node["name"] == name).expect("a node of that name");
    node["task_id"].as_u64().expect("an id")
}

#[test]
fn a_run_goes_on_with_another_workflow() {
    let mut master = TestMaster::start();
    let run = master.client.run(OLD);
    let mut hand = Hand::of(&master);
    let (command, first) = hand.begin();
    assert_eq!(command, "one");
    let before = master.client.run_view(run);
    let body = json!({"workflow": NEW, "upgrade_reason": "it was wrong", "author": "ann"});

    let preview = master.client.preview(run, &body).expect(200);
    assert_eq!(preview["version"], 2);
    assert_eq!(fates(&preview), "first=finishes second=waits fresh=new gone=removed");
    let task = |name: &str| task_of(&before, name);
    assert_eq!(
        preview["nodes"][0],
        json!({"name": "first", "task_id": task("first"), "status": "running", "fate": "finishes"})
    );
    assert_eq!(preview["nodes"][2], json!({"name": "fresh", "fate": "new"}));
    let gone = json!({"name": "gone", "task_id": task("gone"), "status": "blocked", "fate": "removed"});
    assert_eq!((&preview["removed"], &preview["refused"]), (&json!([gone]), &json!([])));
    assert_eq!(master.client.run_view(run), before, "nothing was changed");
    assert_eq!(master.client.versions_of_run(run).len(), 1);

    let view = master.client.upgrade_run(run, &body).expect(200);
    assert_eq!((&view["version"], &view["revision"], &before["version"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(nodes(&view), "first=running second=blocked fresh=blocked");
    assert_eq!((task_of(&view, "first"), task_of(&view, "second")), (task("first"), task("second")));
    assert!(task_of(&view, "fresh") > task("gone"), "a new number");
    assert_eq!(view["nodes"][2]["needs"], json!(["second"]));
    let fresh = master.client.get(&format!("/api/v2/tasks/{}", task_of(&view, "fresh"))).expect(200);
    assert_eq!((&fresh["node"], &fresh["run_id"]), (&json!("fresh"), &json!(run)));

    hand.finish(first);
    hand.do_next("TWO");
    hand.do_next("three");
    let ended = master.client.ended(run);
    assert_eq!(nodes(&ended), "first=completed second=completed fresh=completed");
    assert_eq!((&ended["status"], &ended["nodes"][0]["attempt"]), (&json!("completed"), &json!(1)));

    let versions = master.client.versions_of_run(run);
    let row = |view: &Value| json!([view["version"], view["reason"], view.get("author")]);
    assert_eq!(
        versions.iter().map(row).collect::<Vec<_>>(),
        [json!([1, "", null]), json!([2, "it was wrong", "ann"])]
    );
    assert_eq!(versions[0]["definition"], before["definition"]);
    assert_eq!(
        (&versions[1]["definition"], &versions[0]["created_at"]),
        (&view["definition"], &before["created_at"])
    );
    assert_eq!(versions[0]["workflow"]["nodes"][2]["name"], "gone");
    assert_eq!(versions[1]["workflow"]["nodes"][2]["name"], "fresh");
    let events = master.client.get(&format!("/api/v2/events?subject=run:{run}")).expect(200);
    let upgraded = events["events"].as_array().expect("events").iter();
    let upgraded: Vec<_> = upgraded.filter(|event| event["type"] == "run.upgraded").collect();
    assert_eq!((upgraded.len(), &upgraded[0]["data"]["version"]), (1, &json!(2)));

    drop(hand);
    master.restart();
    assert_eq!(master.client.run_view(run), ended);
    assert_eq!(master.client.versions_of_run(run), versions);
    assert_eq!(master.client.get("/api/v2/runs").expect(200)["runs"][0]["version"], 2);
}

#[test]
fn an_attempt_after_the_upgrade_does_what_the_new_workflow_says() {
    let mut master = TestMaster::start();
    let run = master.client.run(OLD);
    let mut hand = Hand::of(&master);
    let (_, first) = hand.begin();
    master.client.upgrade_run(run, &json!({ "workflow": NEW })).expect(200);
    hand.fail(first);
    let (command, again) = hand.begin();
    assert_eq!((command.as_str(), again.attempt.0), ("ONE", 2));
    // The next master knows it, too.
    drop(hand);
    master.restart();
    let mut hand = Hand::again(&master);
    hand.do_next("ONE");
    hand.do_next("TWO");
    hand.do_next("three");
    assert_eq!(master.client.ended(run)["status"], "completed");
}

#[test]
fn a_node_that_is_called_otherwise_keeps_what_it_left() {
    let master = TestMaster::start();
    let file = "version: 1\ntasks:\n  a: {run: one}\n  ask: {approval: true, needs: a}\n  b: {run: two, needs: ask}\n";
    let run = master.client.run(file);
    let mut hand = Hand::of(&master);
    hand.do_next("one");
    let asked = |run: &Value| nodes(run) == "a=completed ask=pending b=blocked";
    let before = master.client.until(&format!("/api/v2/runs/{run}"), asked);
    let file = "version: 1\ntasks:\n  build: {run: one}\n  ask: {approval: true, needs: build}\n  b: {run: other, needs: ask, input: '${{ tasks.build.result }}'}\n";
    let without = master.client.preview(run, &json!({ "workflow": file })).expect(200);
    assert_eq!(fates(&without), "build=new ask=waits b=waits a=removed");
    let body = json!({"workflow": file, "map": {"build": "a"}});
    let preview = master.client.preview(run, &body).expect(200);
    assert_eq!(fates(&preview), "build=kept ask=waits b=waits");
    assert_eq!((&preview["nodes"][0]["was"], preview["nodes"][1].get("was")), (&json!("a"), None));
    let view = master.client.upgrade_run(run, &body).expect(200);
    assert_eq!(nodes(&view), "build=completed ask=pending b=blocked");
    assert_eq!(task_of(&view, "build"), task_of(&before, "a"));
    assert_eq!(master.client.get("/api/v2/tasks/1").expect(200)["node"], "build");
    master.client.post(&format!("/api/v2/tasks/{}/approve", task_of(&view, "ask")), "").expect(200);
    let (command, key) = hand.begin();
    assert_eq!(command, "other");
    assert_eq!(master.client.get(&format!("/api/v2/tasks/{}", key.task)).expect(200)["input"], "done");
    hand.finish(key);
    assert_eq!(nodes(&master.client.ended(run)), "build=completed ask=completed b=completed");
}

#[test]
fn a_node_that_is_mapped_to_nothing_is_a_new_one() {
    let master = TestMaster::start();
    let run = master.client.run("version: 1\ntasks: {a: {}, ask: {approval: true}}\n");
    let body = json!({"workflow": "version: 1\ntasks: {a: {}, ask: {approval: true}}\n", "map": {"a": null}});
    assert_eq!(fates(&master.client.preview(run, &body).expect(200)), "a=new ask=waits a=removed");
    let view = master.client.upgrade_run(run, &body).expect(200);
    assert_eq!(nodes(&view), "a=completed ask=pending");
    assert_eq!((task_of(&view, "a"), task_of(&view, "ask")), (3, 2));
    let old = master.client.get("/api/v2/tasks/1").expect(200);
    assert_eq!((&old["status"], &old["run_id"]), (&json!("completed"), &json!(run)));
    assert_ne!(old["node"], "a");
}

#[test]
fn what_has_ended_runs_again_from_where_it_is_asked() {
    let master = TestMaster::start();
    let file = |command: &str| {
        format!(
            "version: 1\ntasks:\n  a: {{run: one}}\n  b: {{run: {command}, needs: a}}\n  c: {{approval: true, needs: b}}\n"
        )
    };
    let run = master.client.run(&file("two"));
    let mut hand = Hand::of(&master);
    hand.do_next("one");
    hand.do_next("two");
    let asked = |run: &Value| nodes(run) == "a=completed b=completed c=pending";
    master.client.until(&format!("/api/v2/runs/{run}"), asked);
    let body = json!({"workflow": file("TWO"), "restart_from": ["b"]});
    assert_eq!(fates(&master.client.preview(run, &body).expect(200)), "a=kept b=again c=waits");
    let view = master.client.upgrade_run(run, &body).expect(200);
    assert_eq!(nodes(&view), "a=completed b=pending c=blocked");
    let (command, key) = hand.begin();
    assert_eq!((command.as_str(), key.attempt.0), ("TWO", 2));
    // What is at work runs again only when that is asked for.
    let lost = master.client.upgrade_run(run, &body).expect(409);
    assert!(detail(&lost).contains("'b' is at work"), "{lost}");
    let preview = master.client.preview(run, &body).expect(200);
    assert_eq!(
        (fates(&preview), &preview["refused"]),
        ("a=kept b=refused c=waits".to_owned(), &json!(["b"]))
    );
    assert_eq!(master.client.run_view(run)["version"], 2);
    hand.finish(key);
    master.client.until(&format!("/api/v2/runs/{run}"), asked);
}

#[test]
fn what_is_at_work_is_begun_anew_or_stopped_when_that_is_asked_for() {
    let master = TestMaster::start();
    let run = master.client.run("version: 1\ntasks: {a: {run: one}, b: {run: two}, c: {run: three}}\n");
    let mut hand = Hand::of(&master);
    let keys: Vec<(String, AttemptKey)> = (0..3).map(|_| hand.begin()).collect();
    let key = |command: &str| keys.iter().find(|(given, _)| given == command).expect("begun").1;
    let file = "version: 1\ntasks: {a: {run: ONE}, c: {run: three}}\n";
    let preview = master.client.preview(run, &json!({ "workflow": file })).expect(200);
    assert_eq!(fates(&preview), "a=finishes c=goes_on b=refused");
    assert_eq!(preview["refused"], json!(["b"]));
    let refused = master.client.upgrade_run(run, &json!({ "workflow": file })).expect(409);
    assert!(detail(&refused).contains("'b' is at work"), "{refused}");
    let body = json!({"workflow": file, "restart": true});
    assert_eq!(fates(&master.client.preview(run, &body).expect(200)), "a=restarts c=goes_on b=stopped");
    let view = master.client.upgrade_run(run, &body).expect(200);
    assert_eq!(nodes(&view), "a=pending c=running");
    let (command, again) = hand.begin();
    assert_eq!((command.as_str(), again.attempt.0), ("ONE", 2));
    hand.finish(again);
    hand.finish(key("three"));
    assert_eq!(nodes(&master.client.ended(run)), "a=completed c=completed");
    let attempts = master.client.get(&format!("/api/v2/tasks/{}/attempts", key("one").task)).expect(200);
    assert_eq!(attempts["attempts"][0]["status"], "cancelled", "{attempts}");
    // The one that is no longer there is being stopped, whether the run has ended or not.
    let body = json!({"event": "finished", "started_at": 1, "finished_at": 2, "end": {"end": "cancelled"}});
    hand.report(|no| crate::workers::report(no, key("two"), body.clone()));
    let gone = format!("/api/v2/tasks/{}", key("two").task);
    master.client.until(&gone, |task| task["status"] == "cancelled");
}

#[test]
fn a_run_that_has_failed_goes_on_when_it_is_mended() {
    let mut master = TestMaster::start();
    let file = |command: &str| {
        format!(
            "version: 1\nvars: {{n: 1}}\ntasks:\n  a: {{run: one}}\n  b: {{run: {command}, needs: a}}\n  c: {{run: three, needs: b}}\n"
        )
    };
    let run = master.client.run(&file("bad"));
    let mut hand = Hand::of(&master);
    hand.do_next("one");
    let (_, key) = hand.begin();
    hand.fail(key);
    assert_eq!(nodes(&master.client.ended(run)), "a=completed b=failed c=skipped");
    let alone = json!({ "workflow": file("good") });
    for answer in [master.client.upgrade_run(run, &alone), master.client.preview(run, &alone)] {
        let problem = answer.expect(409);
        assert!(detail(&problem).contains("restart_from"), "{problem}");
    }
    drop(hand);
    master.restart();
    let body = json!({"workflow": file("good"), "restart_from": ["b"], "vars": {"n": 2}});
    assert_eq!(fates(&master.client.preview(run, &body).expect(200)), "a=kept b=again c=again");
    let view = master.client.upgrade_run(run, &body).expect(200);
    assert_eq!((&view["status"], &view["vars"]), (&json!("running"), &json!({"n": 2})));
    assert_eq!(view.get("error"), None);
    let mut hand = Hand::again(&master);
    hand.do_next("good");
    hand.do_next("three");
    assert_eq!(nodes(&master.client.ended(run)), "a=completed b=completed c=completed");
    // The run's own variables stay where nothing else is said.
    let body = json!({"workflow": file("good").replace("{n: 1}", "{n: 1, m: 5}"), "restart_from": ["c"]});
    let view = master.client.upgrade_run(run, &body).expect(200);
    assert_eq!((&view["version"], &view["vars"]), (&json!(3), &json!({"n": 2, "m": 5})));
}

#[test]
fn a_run_that_is_paused_stays_so() {
    let master = TestMaster::start();
    let run = master.client.run("version: 1\ntasks: {ask: {approval: true}, a: {needs: ask}}\n");
    master.client.post(&format!("/api/v2/runs/{run}/pause"), "").expect(200);
    let file = "version: 1\ntasks: {first: {}, a: {needs: first}}\n";
    let view = master.client.upgrade_run(run, &json!({ "workflow": file })).expect(200);
    assert_eq!((&view["status"], nodes(&view).as_str()), (&json!("paused"), "first=blocked a=blocked"));
    let view = master.client.post(&format!("/api/v2/runs/{run}/resume"), "").expect(200);
    assert_eq!(nodes(&view), "first=completed a=completed");
}

#[test]
fn an_upgrade_of_another_version_is_refused() {
    let master = TestMaster::start();
    let run = master.client.run("version: 1\ntasks: {ask: {approval: true}}\n");
    let file = |n: u32| format!("version: 1\ntasks: {{ask: {{approval: 'really? {n}'}}}}\n");
    let expecting = |version: u32| json!({"workflow": file(version), "expected_version": version});
    assert_eq!(master.client.upgrade_run(run, &expecting(1)).expect(200)["version"], 2);
    for version in [0, 1, 3] {
        let problem = master.client.upgrade_run(run, &expecting(version)).expect(409);
        assert_eq!(problem["type"], "urn:agentflow:problem:version");
        assert!(detail(&problem).contains("version is 2, not"), "{problem}");
        master.client.preview(run, &expecting(version)).expect(409);
    }
    // Of those who expect nothing each one is heard.
    std::thread::scope(|scope| {
        for n in 10..13 {
            let client = &master.client;
            scope.spawn(move || client.upgrade_run(run, &json!({ "workflow": file(n) })).expect(200));
        }
    });
    let versions = master.client.versions_of_run(run);
    assert_eq!(versions.iter().map(|view| &view["version"]).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let page = |query: &str| master.client.get(&format!("/api/v2/runs/{run}/versions?{query}"));
    let first = page("limit=3").expect(200);
    assert_eq!((first["versions"].as_array().map(Vec::len), &first["next_cursor"]), (Some(3), &json!("3")));
    let second = page("limit=3&cursor=3").expect(200);
    assert_eq!((second["versions"].as_array().map(Vec::len), second.get("next_cursor")), (Some(2), None));
    for wrong in ["limit=0", "cursor=x", "page=2"] {
        page(wrong).expect(422);
    }
}

#[test]
fn what_is_being_stopped_or_is_a_part_of_another_run_is_not_upgraded() {
    let master = TestMaster::start();
    let file = json!({ "workflow": "version: 1\ntasks: {a: {run: one}, b: {}}\n" });
    let run = master.client.run("version: 1\ntasks: {a: {run: one}}\n");
    let mut hand = Hand::of(&master);
    let (_, key) = hand.begin();
    master.client.post(&format!("/api/v2/runs/{run}/cancel"), "").expect(200);
    for answer in [master.client.upgrade_run(run, &file), master.client.preview(run, &file)] {
        let problem = answer.expect(409);
        assert!(detail(&problem).contains("not being stopped"), "{problem}");
    }
    hand.finish(key);
    master.client.ended(run);

    let parent = master.client.run("version: 1\ntasks: {child: {workflow: {tasks: {x: {}}}}}\n");
    master.client.ended(parent);
    for answer in [master.client.upgrade_run(parent + 1, &file), master.client.preview(parent + 1, &file)] {
        let problem = answer.expect(409);
        assert!(detail(&problem).contains("of another run"), "{problem}");
    }
    for path in ["/api/v2/runs/99/upgrade", "/api/v2/runs/99/upgrade?dry_run=1", "/api/v2/runs/x/upgrade"] {
        master.client.post(path, &file.to_string()).expect(404);
    }
    master.client.get("/api/v2/runs/99/versions").expect(404);
}

#[test]
fn what_is_wrong_with_an_upgrade_is_said() {
    let master = TestMaster::start();
    let run = master.client.run("version: 1\ntasks: {ask: {approval: true}, a: {needs: ask}}\n");
    let right = "version: 1\nvars: {n: 1}\ntasks: {ask: {approval: true}, b: {needs: ask}}\n";
    let long = "x".repeat(5_000);
    for (body, pointer) in [
        (json!({"workflow": right, "map": {"c": "a"}}), "/map"),
        (json!({"workflow": right, "map": {"b": "c"}}), "/map"),
        (json!({"workflow": right, "map": {"b": "a", "ask": "a"}}), "/map"),
        (json!({"workflow": right, "map": {"b": 5}}), "/map/b"),
        (json!({"workflow": right, "restart_from": ["a"]}), "/restart_from"),
        (json!({"workflow": right, "restart_from": "b"}), "/restart_from"),
        (json!({"workflow": right, "vars": {"m": 1}}), "/vars/m"),
        (json!({"workflow": right, "vars": [1]}), "/vars"),
        (json!({"workflow": right, "restart": 1}), "/restart"),
        (json!({"workflow": right, "expected_version": -1}), "/expected_version"),
        (json!({"workflow": right, "upgrade_reason": long}), "/upgrade_reason"),
        (json!({"workflow": right, "upgrade_reason": "\u{0}"}), "/upgrade_reason"),
        (json!({"workflow": right, "author": long}), "/author"),
        (json!({"workflow": right, "colour": 1}), "/colour"),
        (json!({"workflow": {"version": 1, "tasks": {"a": {"needs": "b"}}}}), "/workflow/tasks/a/needs"),
        (
            json!({"workflow": {"version": 1, "tasks": {"a": {"retry": {"max": "x"}}}}}),
            "/workflow/tasks/a/retry/max",
        ),
        (
            json!({"workflow": {"version": 1, "tasks": {"a": {"run": "${{ inputs.x }}"}}}}),
            "/workflow/tasks/a/command",
        ),
    ] {
        for answer in [master.client.upgrade_run(run, &body), master.client.preview(run, &body)] {
            let problem = answer.expect(422);
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
        }
    }
    let problem =
        master.client.upgrade_run(run, &json!({"workflow": "version: 1\ntasks:\n  a: {needs: b}\n"}));
    let problem = problem.expect(422);
    assert!(problem["errors"][0]["detail"].as_str().is_some_and(|text| text.starts_with("3:")), "{problem}");
    master.client.upgrade_run(run, &json!({})).expect(422);
    master.client.upgrade_run(run, &json!([])).expect(422);
    let path = format!("/api/v2/runs/{run}/upgrade");
    master.client.post(&path, "").expect(400);
    master
        .client
        .post(&format!("{path}?dry_run=maybe"), &json!({ "workflow": right }).to_string())
        .expect(422);
    master.client.post(&format!("{path}?colour=red"), &json!({ "workflow": right }).to_string()).expect(422);
    let versions = master.client.versions_of_run(run);
    assert_eq!((versions.len(), &versions[0]["version"]), (1, &json!(1)), "nothing was changed");
    assert_eq!(versions[0]["workflow"]["nodes"][1]["name"], "a");
}

#[test]
fn inputs_are_the_run_s_own_unless_others_are_given() {
    let master = TestMaster::start();
    let file = "version: 1\ntasks: {ask: {approval: 'for ${{ inputs.who }}?'}}\n";
    let body = json!({"workflow": file, "inputs": {"who": "me"}}).to_string();
    let run = master.client.post("/api/v2/runs", &body).expect(201)["id"].as_u64().expect("an id");
    let same = file.replace("for", "really for");
    let view = master.client.upgrade_run(run, &json!({ "workflow": same })).expect(200);
    assert_eq!(view["inputs"], json!({"who": "me"}));
    let why = || master.client.get("/api/v2/tasks/1/why").expect(200).to_string();
    assert!(why().contains("really for me?"), "{}", why());
    let view =
        master.client.upgrade_run(run, &json!({"workflow": same, "inputs": {"who": "you"}})).expect(200);
    assert_eq!((&view["inputs"], nodes(&view).as_str()), (&json!({"who": "you"}), "ask=pending"));
    assert!(why().contains("really for you?"), "{}", why());
    let inputs = |view: &Value| view["inputs"]["who"].clone();
    let versions = master.client.versions_of_run(run);
    assert_eq!(versions.iter().map(inputs).collect::<Vec<_>>(), ["me", "me", "you"]);
}
