//! A workflow of fifty nodes with everything that workflows can do, of which each node's end is
//! certain: whoever plays the worker does what the commands say.
//!
//! ```text
//! give JSON    ends well and leaves that
//! pass         ends well and leaves its input
//! fail         fails
//! flaky JSON   fails once, then does as `give`
//! ```

use serde_json::{Value, json};

/// The file.
pub(super) fn file() -> String {
    let mut tasks = vec![json!({"name": "start", "run": r#"give {"n": 2, "list": [1, 2, 3]}"#})];
    tasks.extend(chain());
    tasks.extend(fan());
    tasks.extend(repeated());
    tasks.extend(failures());
    tasks.extend(conditions());
    tasks.extend(children());
    json!({
        "version": 1,
        "name": "fifty",
        "max_parallel": 4,
        "vars": {"word": "fifty", "items": ["x", {"y": 1}]},
        "tasks": tasks,
    })
    .to_string()
}

fn chain() -> Vec<Value> {
    let node = |n: u32| {
        let before = if n == 1 { "start".to_owned() } else { format!("c{}", n - 1) };
        let kind = if n == 3 { "flaky" } else { "give" };
        let run = format!(r#"{kind} {{"n": ${{{{ tasks.{before}.outputs.n + 1 }}}}}}"#);
        json!({"name": format!("c{n}"), "needs": before, "run": run, "retry": {"max": 1, "backoff_ms": 30}})
    };
    (1..=8).map(node).collect()
}

fn fan() -> Vec<Value> {
    let name = |n: u32| format!("f{n}");
    let run = |n: u32| format!(r#"give {{"n": {n}, "word": "${{{{ vars.word }}}}"}}"#);
    let mut tasks: Vec<Value> =
        (0..11).map(|n| json!({"name": name(n), "needs": "start", "run": run(n)})).collect();
    let sum: Vec<String> = (0..11).map(|n| format!("tasks.f{n}.outputs.n")).collect();
    let run = format!(r#"give {{"sum": ${{{{ {} }}}}}}"#, sum.join(" + "));
    tasks.push(json!({"name": "join", "needs": (0..11).map(name).collect::<Vec<_>>(), "run": run}));
    tasks.push(json!({"name": "milestone", "needs": ["join", "c8"]}));
    tasks
}

fn repeated() -> Vec<Value> {
    vec![
        json!({
            "name": "each", "needs": "start", "foreach": "${{ tasks.start.outputs.list }}", "max_parallel": 2,
            "run": r#"give {"n": ${{ item * 10 + index }}}"#,
            "collect": {"of": "${{ item }}", "got": "${{ self.outputs.n }}"},
        }),
        json!({"name": "after-each", "needs": "each", "run": r#"give {"all": ${{ tasks.each.outputs | tojson }}}"#}),
        json!({
            "name": "each-flaky", "foreach": [1, "two"], "run": r#"flaky {"n": ${{ index }}}"#,
            "retry": {"max": 1, "backoff_ms": 0},
        }),
        json!({
            "name": "loop", "needs": "start", "run": r#"give {"round": ${{ loop.iteration }}}"#,
            "loop": {"until": "self.outputs.round >= 3", "max": 5},
        }),
        json!({"name": "loop-fails", "kind": "noop", "loop": {"until": "loop.iteration > 2", "max": 2}}),
        json!({"name": "loop-handled", "on_failure": "loop-fails", "run": r#"give {"n": 1}"#}),
    ]
}

fn failures() -> Vec<Value> {
    vec![
        json!({"name": "bad", "needs": "c1", "run": "fail"}),
        json!({"name": "bad-handled", "on_failure": "bad", "run": "pass", "input": {"was": "${{ tasks.bad.status }}"}}),
        json!({"name": "barred", "needs": "bad", "run": "fail"}),
        json!({"name": "barred-too", "needs": ["barred", "c2"], "run": "fail"}),
        json!({
            "name": "whatever", "needs": "bad", "when": "tasks.bad.status == 'failed'",
            "run": r#"give {"n": 4}"#,
        }),
        json!({"name": "no-body", "needs": "start", "run": "give ${{ tasks.start.outputs.missing }}"}),
        json!({"name": "no-body-handled", "on_failure": "no-body", "run": r#"give {"n": 5}"#}),
    ]
}

fn conditions() -> Vec<Value> {
    vec![
        json!({"name": "no", "needs": "start", "when": "tasks.start.outputs.n > 5", "run": "fail"}),
        json!({"name": "after-no", "needs": "no", "run": "fail"}),
        json!({"name": "after-some", "needs": ["no", "c1"], "run": r#"give {"n": 6}"#}),
        json!({"name": "when-fails", "needs": "start", "when": "tasks.start.outputs.missing > 1", "run": "fail"}),
        json!({"name": "when-handled", "on_failure": "when-fails", "kind": "noop"}),
        json!({"name": "ask", "needs": "c4", "approval": "may ${{ run.name }} go on with ${{ tasks.c4.outputs.n }}?"}),
        json!({"name": "asked", "needs": "ask", "approval": true, "run": r#"give {"n": 7}"#}),
        json!({
            "name": "last", "needs": ["milestone", "asked", "after-each", "loop", "after-children", "no"],
            "run": r#"give {"sum": ${{ tasks.join.outputs.sum }}, "n": ${{ tasks.c8.outputs.n }}}"#,
        }),
    ]
}

fn children() -> Vec<Value> {
    let sequential = json!({
        "mode": "sequential", "continue_on_failure": true, "vars": {"n": 0},
        "tasks": [
            {"name": "one", "run": r#"give {"n": ${{ vars.n }}}"#},
            {"name": "two", "run": "fail"},
            {"name": "two-handled", "on_failure": "two", "kind": "noop"},
            {"name": "three", "approval": true},
            {"name": "four", "run": r#"give {"n": ${{ tasks.one.outputs.n + 1 }}}"#},
        ],
    });
    // One at a time, or what is at work when the first fails would depend on the moment.
    let parallel = json!({
        "mode": "parallel", "fail_fast": true, "max_parallel": 1,
        "tasks": {"a": {"run": r#"give {"n": 1}"#}, "b": {"run": "fail"}, "c": {"run": "fail"}},
    });
    let pipeline = json!({
        "mode": "pipeline", "vars": {"items": []}, "items": "${{ vars.items }}",
        "tasks": [
            {"name": "first", "run": "pass"},
            {"name": "skipped", "when": "item is mapping", "run": "pass"},
            {"name": "third", "run": "pass"},
        ],
    });
    let deep = json!({"tasks": {"leaf": {"foreach": [1, 2], "run": r#"give {"n": ${{ item }}}"#}}});
    let conditional = json!({
        "mode": "conditional",
        "tasks": [
            {"name": "which", "run": r#"give {"way": "left"}"#},
            {"name": "left", "needs": "which", "when": "tasks.which.outputs.way == 'left'", "workflow": deep},
            {"name": "right", "needs": "which", "when": "tasks.which.outputs.way == 'right'", "run": "fail"},
            {"name": "both", "needs": ["left", "right"], "run": r#"give ${{ tasks.left.outputs | tojson }}"#},
        ],
    });
    vec![
        json!({
            "name": "sequential", "needs": "c2", "workflow": sequential,
            "vars": {"n": "${{ tasks.c2.outputs.n }}"},
        }),
        json!({"name": "parallel", "workflow": parallel}),
        json!({"name": "parallel-handled", "on_failure": "parallel", "run": r#"give {"n": 8}"#}),
        json!({"name": "pipeline", "workflow": pipeline, "vars": {"items": "${{ vars.items }}"}}),
        json!({"name": "conditional", "needs": "start", "workflow": conditional}),
        json!({
            "name": "after-children", "needs": ["sequential", "pipeline", "conditional"],
            "run": r#"give {"s": ${{ tasks.sequential.outputs | tojson }}, "p": ${{ tasks.pipeline.outputs | tojson }}, "c": ${{ tasks.conditional.outputs | tojson }}}"#,
        }),
        json!({"name": "apart", "run": "pass", "input": [1, 2]}),
    ]
}
