//! What is wrong with a file, and where.

use super::*;

#[test]
fn keys_of_the_file() {
    refused(
        "version: 1\ntask:\n  a: x\n",
        &[
            "1:1: 'tasks' is missing: a map from names to tasks, or a list",
            "2:1: 'task' is unknown in a workflow (did you mean 'tasks'?)",
        ],
    );
    refused("tasks: {a: x}", &["1:1: 'version' is missing (begin with version: 1)"]);
    refused("version: 2\ntasks: {a: x}", &["1:10: version 2 is unknown; allowed: 1"]);
    refused("version: '1'\ntasks: {a: x}", &["1:10: version \"1\" is unknown; allowed: 1"]);
    refused(
        "version: 1\nmode: sequental\ntasks: {a: x}",
        &[
            "2:7: 'sequental' is no mode; allowed: sequential, parallel, dag, pipeline, conditional (did you mean 'sequential'?)",
        ],
    );
    refused("version: 1\nname: [x]\ntasks: {a: x}", &["2:7: 'name' is a text, not a list"]);
    refused(
        "version: 1\nmax_parallel: 0\ntasks: {a: x}",
        &["2:15: 'max_parallel' is 0; allowed: a whole number from 1 to 4294967295"],
    );
    refused("version: 1\nfail_fast: 1\ntasks: {a: x}", &["2:12: 'fail_fast' is true or false, not a number"]);
    refused(
        "version: 1\ncontinue_on_failure: true\ntasks: {a: x}",
        &[
            "2:22: 'continue_on_failure' means nothing in mode dag (in other modes branches that do not need the failed task go on anyway)",
        ],
    );
    refused(
        "version: 1\nitems: [1]\ntasks: {a: x}",
        &["2:8: 'items' means nothing in mode dag (use mode: pipeline, or 'foreach' in a task)"],
    );
    refused(
        "version: 1\nvars: {a: 'x ${{ 1 }}'}\ntasks: {a: x}",
        &["2:14: 'vars' holds no expressions (write the expression where it is used)"],
    );
    refused("version: 1\ntasks: {}", &["2:8: there are no tasks"]);
    refused("version: 1\ntasks:", &["2:6: 'tasks' is missing: a map from names to tasks, or a list"]);
    refused("- a\n", &["1:1: a workflow is a map with 'version' and 'tasks', not a list"]);
    refused(
        "version: 1\ndefaults: {needs: a, colour: 1}\ntasks: {a: x}",
        &["2:12: 'needs' cannot be a default; it belongs to one task", "2:22: 'colour' is unknown in a task"],
    );
}

#[test]
fn names() {
    refused_tasks("  a: x\n  b: x\n  a: y\n", &["5:3: 'a' is given twice"]);
    refused("{\"version\": 1,\n \"tasks\": {\"a\": \"x\",\n  \"a\": \"y\"}}", &["3:3: 'a' is given twice"]);
    refused_tasks(
        "- {name: a, run: x}\n- {name: a, run: y}\n- run: z\n- make\n",
        &[
            "4:10: 'a' is given twice (give one of them another name)",
            "5:3: the task has no name (in a list each task is a map with 'name')",
            "6:3: the task has no name (in a list each task is a map with 'name')",
        ],
    );
    refused_tasks(
        "  a b: x\n  'c[0]': x\n  \"d\\n\": x\n",
        &[
            "3:3: 'a b' is no name; allowed: 1 to 128 bytes of letters, digits, '_', '-' and '.'",
            "4:3: 'c[0]' is no name; allowed: 1 to 128 bytes of letters, digits, '_', '-' and '.'",
            "5:3: 'd\\n' is no name; allowed: 1 to 128 bytes of letters, digits, '_', '-' and '.'",
        ],
    );
    refused_tasks(
        &format!("  {}: x\n", "a".repeat(129)),
        &[&format!(
            "3:3: '{}' is no name; allowed: 1 to 128 bytes of letters, digits, '_', '-' and '.'",
            "a".repeat(40),
        )],
    );
    refused_tasks(
        "- {name: '', run: x}\n",
        &["3:10: '' is no name; allowed: 1 to 128 bytes of letters, digits, '_', '-' and '.'"],
    );
    refused_tasks("  a: {run: x, env: {A: '1', A: '2'}}\n", &["3:29: 'A' is given twice"]);
    read("version: 1\ntasks: {'größe_1.2-x': y}");
}

#[test]
fn relations() {
    refused_tasks(
        "  build: x\n  test: {run: y, needs: biuld}\n",
        &["4:25: there is no task 'biuld' (did you mean 'build'?)"],
    );
    refused_tasks("  a: {run: x, needs: [a]}\n", &["3:23: 'a' names itself"]);
    refused_tasks(
        "  a: {run: x, on_failure: 3}\n",
        &["3:27: 'on_failure' is the name of a task, or a list of names, not a number"],
    );
    refused_tasks("  a: {run: x, needs: [3]}\n", &["3:23: the name of a task is expected, not a number"]);
    refused_tasks(
        "  a: {run: x, needs: b}\n  b:\n    run: x\n    needs:\n    - c\n    - a\n  c: x\n",
        &["3:22: a cycle: a -> b -> a (take 'b' out of what 'a' comes after)"],
    );
    refused_tasks(
        "  a: {needs: b}\n  b: {needs: a}\n  c: {needs: d}\n  d: {needs: c}\n",
        &[
            "3:14: a cycle: a -> b -> a (take 'b' out of what 'a' comes after)",
            "5:14: a cycle: c -> d -> c (take 'd' out of what 'c' comes after)",
        ],
    );
    refused(
        "version: 1\nmode: sequential\ntasks:\n  a: {run: x, needs: [c]}\n  b: x\n  c: x\n",
        &["4:23: a cycle: a -> b -> c -> a (in mode sequential each task comes after the one before it)"],
    );
    refused_tasks(
        "  a: x\n  b: {run: y, needs: a, on_failure: a}\n",
        &[
            "4:3: 'b' can never run: it needs 'a' to complete and to fail (take it out of needs or out of on_failure)",
        ],
    );
    refused_tasks(
        "  a: x\n  b: {run: y, on_failure: a}\n  c: {needs: b}\n  d: {needs: [c, a]}\n  e: {needs: d}\n",
        &[
            "6:3: 'd' can never run: it needs 'a' to complete and to fail (take it out of needs or out of on_failure)",
        ],
    );
    refused_tasks(
        "  a: x\n  b: x\n  c: {run: y, needs: [a, b], on_failure: [a, b]}\n",
        &[
            "5:3: 'c' can never run: it needs 'a' to complete and to fail (take it out of needs or out of on_failure)",
        ],
    );
    read(
        "version: 1\ntasks:\n  a: x\n  b: {run: y, on_failure: a}\n  c: {needs: [a], when: tasks.a.status != 'x', on_failure: b}\n",
    );
    read("version: 1\nmode: sequential\ntasks:\n  a: x\n  b: {run: y, on_failure: a}\n  c: x\n");
}

#[test]
fn tasks() {
    refused_tasks("  a: {rum: x}\n", &["3:7: 'rum' is unknown in a task (did you mean 'run'?)"]);
    refused_tasks("  a: 3\n", &["3:6: a task is a map, or a command as text, not a number"]);
    refused_tasks("  a: {run: [x]}\n", &["3:12: 'run' is a command as text, not a list"]);
    refused_tasks("  a: {run: x, command: y}\n", &["3:7: 'run' and 'command' are the same; leave one out"]);
    refused_tasks(
        "  a: {run: x, loop: {until: 'true', max: 0}}\n",
        &["3:42: 'max' is 0; allowed: a whole number from 1 to 1000"],
    );
    refused_tasks(
        "  a: {run: x, loop: {until: 'true', max: 1001}}\n",
        &["3:42: 'max' is 1001; allowed: a whole number from 1 to 1000"],
    );
    refused_tasks(
        "  a: {run: x, loop: {til: 'true', max: 2}}\n",
        &["3:21: 'until' is missing in 'loop'", "3:22: 'til' is unknown in a loop"],
    );
    refused_tasks("  a: {run: x, loop: 3}\n", &["3:21: 'loop' is a map with until and max, not a number"]);
    refused_tasks(
        "  a: {run: x, foreach: 3}\n",
        &[
            "3:24: a list is expected, or an expression that gives one, not a number (write it as [a, b], or as ${{ vars.NAME }})",
        ],
    );
    refused_tasks(
        "  a: {run: x, foreach: abc}\n",
        &["3:24: 'the list' is an expression, not a text (write it inside ${{ }})"],
    );
    refused_tasks(
        "  a: {run: x, foreach: {a: 1}}\n",
        &[
            "3:24: a list is expected, or an expression that gives one, not a map (write it as [a, b], or as ${{ vars.NAME }})",
        ],
    );
    refused_tasks(
        "  a: {run: x, collect: 3, max_parallel: 2}\n",
        &[
            "3:15: 'collect' means nothing without 'foreach'",
            "3:27: 'max_parallel' means nothing without 'foreach'",
        ],
    );
    refused_tasks(
        "  a: {run: x, foreach: [1], max_parallel: 0}\n",
        &["3:43: 'max_parallel' is 0; allowed: a whole number from 1 to 4294967295"],
    );
    refused_tasks(
        "  a: {approval: 3}\n  b: {approval: {msg: x}}\n",
        &[
            "3:17: 'approval' is true, a text, or a map with message, not a number",
            "4:18: 'msg' is unknown in a approval",
        ],
    );
    refused_tasks("  a: {run: x, vars: {b: 1}}\n", &["3:15: 'vars' means nothing without 'workflow'"]);
    refused_tasks(
        "  a: {run: x, workflow: {tasks: {b: y}}}\n",
        &["3:25: a task is either work or a child workflow (put the work into a task of the child)"],
    );
    refused_tasks(
        "  a: {handler: h}\n  b: {handler: {input: 1, nme: x}}\n",
        &[
            "3:16: 'handler' is a map with name and input, not a text",
            "4:16: 'name' is missing in 'handler'",
            "4:27: 'nme' is unknown in a handler (did you mean 'name'?)",
        ],
    );
}

#[test]
fn expressions() {
    refused_tasks(
        "  a: {run: 'x ${{ vars. }}'}\n",
        &["3:24: a name is expected after '.' instead of the end"],
    );
    refused_tasks(
        "  a:\n    run: |\n      one\n      two ${{ x }}\n",
        &["6:15: 'x' is unknown (known are vars, inputs, tasks, item, index, run, self, loop)"],
    );
    refused_tasks(
        "  a: x\n  b: {run: y, needs: a, when: tasks.a.status == 'x' && true}\n",
        &["4:53: '&&' is no operator (write and)"],
    );
    refused_tasks(
        "  a: {run: x, when: '${{ 1 }} and ${{ 2 }}'}\n",
        &[
            "3:21: 'when' is one expression, not a text with several parts (write all of it inside one ${{ }})",
        ],
    );
    refused_tasks("  a: {run: x, when: [1]}\n", &["3:21: 'when' is an expression, not a list"]);
    refused(
        "version: 1\nvars: {name: x, a-1: 1}\ntasks:\n  a: echo ${{ vars.nam }} ${{ vars.a-1 }}\n",
        &[
            "4:15: 'nam' is not among the vars (did you mean 'name'?)",
            "4:31: 'a' is not among the vars (write vars[\"a-1\"])",
        ],
    );
    refused_tasks(
        "  a: echo ${{ vars.a-b }}\n",
        &["3:22: 'b' is unknown (a name with a hyphen is written [\"a-b\"])"],
    );
    refused_tasks(
        "  a: echo ${{ item }}\n  b: echo ${{ self.status }}\n  c: echo ${{ loop.iteration }}\n",
        &[
            "3:15: there is no 'item' here (it is known in a task with foreach, and in a pipeline with items)",
            "4:15: there is no 'self' here (it is known in loop.until and collect)",
            "5:15: there is no 'loop' here (it is known in a task with loop)",
        ],
    );
    refused_tasks(
        "  a: x\n  b: echo ${{ tasks.a.outputs.x }}\n",
        &["4:15: 'a' is not known here: it does not come before this task (add it to needs: a)"],
    );
    refused_tasks(
        "  a: x\n  b: {run: y, needs: a}\n  c: 'echo ${{ tasks.aa.outputs.x }}'\n",
        &["5:16: there is no task 'aa' (did you mean 'a'?)"],
    );
    refused_tasks(
        "  a: echo ${{ tasks.a.outputs.x }}\n",
        &["3:15: 'a' is this task itself, which has not run yet (in loop.until and collect write self)"],
    );
    refused_tasks("  a: {run: x, env: {'${{ 1 }}': x}}\n", &["3:21: a key holds no expressions"]);
    refused_tasks("  a: 'x ${{ 1'\n", &["3:9: '${{' has no '}}'"]);
    refused(
        "version: 1\nmode: pipeline\nitems: ${{ tasks.a.outputs }}\ntasks: {a: x}",
        &["3:12: there is no 'tasks' here (known here are vars and inputs)"],
    );
    refused_tasks(
        "  a: ${{ x }} ${{ vars. }} ${{ 1 }} ${{\n",
        &[
            "3:10: 'x' is unknown (known are vars, inputs, tasks, item, index, run, self, loop)",
            "3:24: a name is expected after '.' instead of the end",
            "3:37: '${{' has no '}}'",
        ],
    );
    // What is not directly before may still be before.
    read("version: 1\ntasks:\n  a: x\n  b: {needs: a}\n  c: {needs: b, run: 'x ${{ tasks.a.outputs.y }}'}\n");
    read("version: 1\nmode: pipeline\nitems: ${{ vars.l }}\nvars: {l: []}\ntasks: {a: 'x ${{ item }}'}\n");
}

#[test]
fn children() {
    refused_tasks(
        "  a:\n    workflow:\n      tasks:\n        b: {run: x, needs: c}\n",
        &["6:28: there is no task 'c'"],
    );
    refused_tasks(
        "  a:\n    vars: {y: 1}\n    workflow:\n      vars: {x: 0}\n      tasks: {b: 'x'}\n",
        &["4:12: 'y' is unknown in a child's vars"],
    );
    let nested = |levels: usize| {
        let mut text = "tasks: {a: x}".to_owned();
        for _ in 0..levels {
            text = format!("tasks: {{a: {{workflow: {{{text}}}}}}}");
        }
        format!("version: 1\n{text}")
    };
    read(&nested(16));
    refused(&nested(17), &["2:391: child workflows are nested deeper than 16"]);
    refused(&nested(200), &["2:491: the file is nested deeper than 64 levels"]);
    let json = |levels: usize| {
        let mut text = "{\"tasks\": {\"a\": \"x\"}}".to_owned();
        for _ in 0..levels {
            text = format!("{{\"tasks\": {{\"a\": {{\"workflow\": {text}}}}}}}");
        }
        format!("{{\"version\": 1, {}", &text[1..])
    };
    refused(&json(200), &["1:1243: the file is nested deeper than 64 levels"]);
    refused(&json(25), &["1:1: the file is nested deeper than 64 levels"]);
}

#[test]
fn texts() {
    refused("", &["1:1: the file is empty"]);
    refused(&"[".repeat(1_000), &["1:256: the file is nested deeper than 64 levels"]);
    refused("{\"version\": 1,\n \"tasks\" {}}", &["2:10: the file is no JSON: expected `:`"]);
    refused(
        "version: 1\n tasks: x: y\n",
        &["2:7: the file is no YAML: mapping values are not allowed in this context"],
    );
    refused(
        "version: 1\ntasks: {a: x}\n---\nversion: 1\n",
        &["3:1: the file holds more than one document; allowed: one"],
    );
    let large = format!("version: 1\n#{}", " ".repeat(32 << 20));
    refused(&large, &["the file is larger than 32 MiB"]);
    read("\u{feff}version: 1\ntasks: {a: x}");
    read("{version: 1, tasks: {a: x}}");
    read("version: 1\ntasks: {a: &x {run: y}, b: {<<: *x, needs: a}}");
}

#[test]
fn sizes() {
    let many = |count: usize| {
        let tasks: Vec<String> = (0..count).map(|n| format!("\"t{n}\":\"x\"")).collect();
        format!("{{\"version\":1,\n\"tasks\":{{{}}}}}", tasks.join(","))
    };
    assert_eq!(read(&many(100_000)).nodes.len(), 100_000);
    refused(
        &many(100_001),
        &[
            "2:9: there are more than 100000 tasks (run one for each item with 'foreach', or start several runs)",
        ],
    );
    let items = vec!["0"; 100_001].join(",");
    refused(
        &format!("{{\"version\":1,\"tasks\":{{\"a\":{{\"run\":\"x\",\"foreach\":[{items}]}}}}}}"),
        &["1:48: the list has more than 100000 items"],
    );
    let line: String = (0..40).map(|n| format!("  t{n}: {{needs: t{}}}\n", (n + 39) % 40)).collect();
    refused_tasks(
        &line,
        &[
            "3:15: a cycle: t0 -> t1 -> t2 -> t3 -> t4 -> t5 -> t6 -> t7 -> … 25 more … -> t33 -> t34 -> t35 -> t36 -> \
           t37 -> t38 -> t39 -> t0 (take 't39' out of what 't0' comes after)",
        ],
    );
    let wrong: String = (0..300).map(|n| format!("  t{n}: {{run: x, needs: nobody}}\n")).collect();
    let wrong = read_text(&format!("version: 1\ntasks:\n{wrong}"), &Server).expect_err("wrong");
    assert_eq!((wrong.len(), wrong.more()), (100, 200));
}

#[test]
fn files() {
    refused_tasks(
        "  a: {run: x, artifacts_from: [c, a, b]}\n  b: x\n",
        &[
            "3:31: 'b' is not known here: it does not come before this task (add it to needs: b)",
            "3:32: there is no task 'c'",
            "3:35: 'a' names itself",
        ],
    );
    refused_tasks(
        "  a: {run: x, artifacts_from: 3}\n",
        &["3:31: 'artifacts_from' is the name of a task, or a list of names, not a number"],
    );
    let many: String = (0..65).map(|n| format!("n{n}, ")).collect();
    let tasks: String = (0..65).map(|n| format!("  n{n}: x\n")).collect();
    refused_tasks(
        &format!("{tasks}  a: {{run: x, needs: [{many}], artifacts_from: [{many}]}}\n"),
        &["68:357: 'artifacts_from' names 65 tasks; at most 64"],
    );
    refused_tasks(
        "  a: {workflow: {version: 1, tasks: {x: y}}, input: 3}\n",
        &[
            "3:53: 'input' means nothing beside 'workflow' (a child workflow gets its values by vars; in a pipeline its inputs are the last stage's output)",
        ],
    );
    read("version: 1\nmode: sequential\ntasks:\n  a: x\n  b: x\n  c: {run: y, artifacts_from: [a, b]}\n");
}

#[test]
fn what_is_known_to_be_no_list() {
    let foreach = |list: &str| format!("  a: x\n  b: {{run: y, needs: a, foreach: '${{{{ {list} }}}}'}}\n");
    for (list, what) in
        [("tasks.a.status", "a text"), ("run.id + 1", "a number"), ("tasks.a.outputs.n | length", "a number")]
    {
        let expect = format!(
            "4:34: a list is expected; the expression gives {what} (give it outputs that are a list)"
        );
        refused_tasks(&foreach(list), &[&expect]);
    }
}
