//! Upgrades of runs whose nodes consist of others: a `foreach` and its items, a child run.

use serde_json::json;

use crate::run_upgrades::{Hand, fates};
use crate::runs::nodes;
use crate::support::TestMaster;

fn file(name: &str, command: &str, items: &str) -> String {
    format!(
        "version: 1\ntasks:\n  {name}: {{foreach: {items}, max_parallel: 1, run: {command}}}\n  last: {{run: last, needs: {name}}}\n"
    )
}

#[test]
fn items_that_have_begun_end_as_they_began() {
    let mut master = TestMaster::start();
    let run = master.client.run(&file("each", "one", "[1, 2]"));
    let mut hand = Hand::of(&master);
    let (_, first) = hand.begin();
    // Other items are another node.
    let other = json!({ "workflow": file("each", "one", "[1, 2, 3]") });
    assert_eq!(fates(&master.client.preview(run, &other).expect(200)), "each=refused last=waits");
    master.client.upgrade_run(run, &other).expect(409);
    let other = json!({"workflow": file("each", "ONE", "[1, 2, 3]"), "restart": true});
    master.client.upgrade_run(run, &other).expect(409);

    let body = json!({"workflow": file("every", "ONE", "[1, 2]"), "map": {"every": "each"}});
    assert_eq!(fates(&master.client.preview(run, &body).expect(200)), "every=goes_on last=waits");
    let view = master.client.upgrade_run(run, &body).expect(200);
    assert_eq!(nodes(&view), "every=running every[0]=running last=blocked");
    hand.finish(first);
    let (command, second) = hand.begin();
    assert_eq!(command, "ONE");
    drop(hand);
    master.restart();
    let mut hand = Hand::again(&master);
    let (command, again) = hand.begin();
    assert_eq!((command.as_str(), again.task), ("ONE", second.task));
    hand.finish(again);
    hand.do_next("last");
    let ended = master.client.ended(run);
    assert_eq!(nodes(&ended), "every=completed every[0]=completed every[1]=completed last=completed");
}

#[test]
fn items_of_a_node_that_is_gone_are_not_shown_as_those_of_another() {
    let master = TestMaster::start();
    let run = master.client.run(&file("each", "one", "[1, 2]"));
    let mut hand = Hand::of(&master);
    hand.do_next("one");
    hand.do_next("one");
    let (_, last) = hand.begin();
    let body = json!({"workflow": file("each", "ONE", "[7]"), "map": {"each": null}});
    assert_eq!(fates(&master.client.preview(run, &body).expect(200)), "each=new last=finishes each=removed");
    let view = master.client.upgrade_run(run, &body).expect(200);
    assert_eq!(nodes(&view), "each=running each[0]=pending last=running");
    hand.do_next("ONE");
    hand.finish(last);
    assert_eq!(nodes(&master.client.ended(run)), "each=completed each[0]=completed last=completed");
}

#[test]
fn a_child_that_has_begun_goes_on() {
    let master = TestMaster::start();
    let file = |inner: &str, after: &str| {
        format!(
            "version: 1\ntasks:\n  child: {{workflow: {{tasks: {{x: {inner}}}}}}}\n  {after}: {{run: {after}, needs: child}}\n"
        )
    };
    let run = master.client.run(&file("one", "old"));
    let mut hand = Hand::of(&master);
    let (_, x) = hand.begin();
    let other = json!({ "workflow": file("ONE", "old") });
    assert_eq!(fates(&master.client.preview(run, &other).expect(200)), "child=refused old=waits");
    master.client.upgrade_run(run, &other).expect(409);
    let body = json!({ "workflow": file("one", "new") });
    assert_eq!(fates(&master.client.preview(run, &body).expect(200)), "child=goes_on new=new old=removed");
    master.client.upgrade_run(run, &body).expect(200);
    // The child is a run itself.
    let inner = json!({ "workflow": "version: 1\ntasks: {x: one, y: {run: two, needs: x}}\n" });
    assert_eq!(fates(&master.client.preview(run + 1, &inner).expect(200)), "x=goes_on y=new");
    master.client.upgrade_run(run + 1, &inner).expect(200);
    hand.finish(x);
    hand.do_next("two");
    hand.do_next("new");
    assert_eq!(nodes(&master.client.ended(run)), "child=completed new=completed");
}

#[test]
fn what_finishes_an_older_version_is_shown_and_can_be_restarted() {
    let master = TestMaster::start();
    let run = master.client.run("version: 1\ntasks: {a: {run: one}}\n");
    let mut hand = Hand::of(&master);
    let (_, first) = hand.begin();
    let file = "version: 1\ntasks: {a: {run: two}}\n";
    let body = json!({ "workflow": file });
    master.client.upgrade_run(run, &body).expect(200);
    assert_eq!(fates(&master.client.preview(run, &body).expect(200)), "a=finishes");
    let again = json!({ "workflow": file, "restart": true });
    assert_eq!(fates(&master.client.preview(run, &again).expect(200)), "a=restarts");
    hand.finish(first);
    let ended = master.client.ended(run);
    assert_eq!(ended["status"], "completed");
    // One that is gone is run again by nobody.
    let other = json!({ "workflow": "version: 1\ntasks: {b: {approval: true}}\n" });
    master.client.upgrade_run(run, &other).expect(200);
    let retry = format!("/api/v2/tasks/{}/retry", ended["nodes"][0]["task_id"]);
    let problem = master.client.post(&retry, "").expect(409);
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("'a~v2' now")), "{problem}");
}
