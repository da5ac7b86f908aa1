//! Every kind of task, from the assignment to its report, on a real worker.

use crate::common::{Master, dir, eventually, exec, is_alive, key, path, shell};
use crate::process::Worker;
use agentflow_core::spec::{Payload, RetryOn, Spec};
use agentflow_protocol::worker::End;

#[test]
fn a_worker_says_who_it_is() {
    let (master, dir) = (Master::start(), dir());
    let token = path(&dir, "token");
    std::fs::write(&token, "af_secret\n").expect("a file");
    let flags = ["--group", "a", "--group", "b", "--slots", "3", "--label", "os=linux", "--gpus", "1"];
    let token_flags = ["--token-file", token.to_str().expect("text")];
    let _worker = Worker::start(&master, &path(&dir, "w"), &[&flags[..], &token_flags].concat());
    let hello = master.wait_hello(1);
    assert_eq!((&*hello.worker, hello.version, hello.slots, hello.prefetch), ("w1", 4, 3, 64));
    assert_eq!(hello.groups.iter().map(|group| &**group).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(hello.labels["os"], "linux");
    assert_eq!(hello.resources.gpus, 1);
    assert!(hello.running.is_empty() && !hello.draining && hello.boot.0 > 0);
    assert_eq!(master.state().tokens, ["Bearer af_secret"]);
    master.wait_for("two heartbeats", |state| state.heartbeats >= 2);
}

#[test]
fn noop_tasks_are_finished_in_batches_without_a_slot() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, dir.path(), &["--slots", "1"]);
    master.assign(&[Spec::new(Payload::Noop)], (1..=3_000).map(|task| (key(task), 0)));
    master.wait_for("all are finished", |state| state.reports.len() == 3_000);
    let state = master.state();
    assert!(state.reports.iter().zip(1..).all(|(report, n)| report.no == n && report.key.task.0 == n));
    assert!(!state.has_started(1));
}

#[test]
fn shell_exec_and_script_run() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "2"]);
    let finished = master.run(1, shell("echo hello; echo world >&2"));
    assert_eq!(finished.end, End::Completed);
    assert_eq!(finished.outcome.exit_code, Some(0));
    assert_eq!(finished.outcome.result.as_deref(), Some("hello\n"));
    assert_eq!((finished.log_bytes, finished.log_cut), (12, 0));
    let log = master.state().log(1);
    assert!(log.contains("hello\n") && log.contains("world\n"), "{log}");
    assert!(master.state().has_started(1));

    let finished = master.run(2, exec(&["printf", "%s", "a b"]));
    assert_eq!(finished.outcome.result.as_deref(), Some("a b"));

    let script = path(&dir, "script");
    std::fs::write(&script, "echo \"got $1\"").expect("a script");
    let spec = |path: &str| Spec::new(Payload::Script { path: path.to_owned(), args: vec!["x".into()] });
    let finished = master.run(3, spec(script.to_str().expect("text")));
    assert_eq!(finished.outcome.result.as_deref(), Some("got x\n"), "{finished:?}");
    // Relative to the task's directory, and run by itself when it may.
    std::fs::write(path(&dir, "own"), "#!/bin/cat\nhello\n").expect("a script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(path(&dir, "own"), mode).expect("a script");
    let mut own = spec("own");
    own.payload = Payload::Script { path: "own".into(), args: vec![] };
    own.workdir = Some(dir.path().to_str().expect("text").to_owned());
    let finished = master.run(4, own);
    assert_eq!(finished.outcome.result.as_deref(), Some("#!/bin/cat\nhello\n"), "{finished:?}");
}

#[test]
fn failures_say_what_happened() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, dir.path(), &[]);
    let finished = master.run(1, shell("echo bad >&2; exit 3"));
    assert_eq!(finished.end, End::Failed(RetryOn::Error));
    assert_eq!(finished.outcome.exit_code, Some(3));
    assert_eq!(finished.outcome.error.as_deref(), Some("exit code 3"));
    let finished = master.run(2, shell("kill -9 $$"));
    assert_eq!(finished.end, End::Failed(RetryOn::Error));
    assert_eq!(finished.outcome.signal, Some(9));
    assert_eq!(finished.outcome.error.as_deref(), Some("killed by signal 9 (SIGKILL)"));
    let finished = master.run(3, exec(&["/no/such/program"]));
    assert_eq!(finished.end, End::Failed(RetryOn::Spawn));
    let error = finished.outcome.error.expect("an error");
    assert!(error.contains("/no/such/program") && error.contains("No such file"), "{error}");
    let mut spec = shell("true");
    spec.workdir = Some("/no/such/directory".into());
    let error = master.run(4, spec).outcome.error.expect("an error");
    assert!(error.contains("/no/such/directory"), "{error}");
    assert_eq!(master.run(5, exec(&[])).end, End::Failed(RetryOn::Spawn));
    let spec = Spec::new(Payload::Script { path: "/no/script".into(), args: vec![] });
    assert_eq!(master.run(6, spec).end, End::Failed(RetryOn::Spawn));
}

#[test]
fn a_process_sees_what_the_contract_promises() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, dir.path(), &[]);
    let mut spec =
        shell("cat; env; test ! -e \"$AGENTFLOW_INPUT\" && test -d \"$(dirname $AGENTFLOW_OUTPUT)\"");
    spec.env.insert("MINE".into(), "yes".into());
    let finished = master.run(7, spec);
    assert_eq!(finished.end, End::Completed, "{finished:?}");
    let text = finished.outcome.result.expect("output");
    let has = |line: &str| text.lines().any(|found| found.starts_with(line));
    for line in ["MINE=yes", "AGENTFLOW_TASK_ID=7", "AGENTFLOW_RUN_ID=", "AGENTFLOW_ATTEMPT=1", "PATH="] {
        assert!(has(line), "{line}: {text}");
    }
    for name in ["FENCE", "ATTEMPT_KEY", "INPUT", "OUTPUT", "CHECKPOINT", "MEMORY", "LOCKS", "SOCKET"] {
        assert!(has(&format!("AGENTFLOW_{name}=")), "{name}: {text}");
    }
    assert!(!text.contains("AGENTFLOW_SECRET"), "{text}");
}

#[test]
fn outputs_come_from_the_file() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, dir.path(), &[]);
    let finished = master.run(1, shell("echo '{\"n\": 1}' > $AGENTFLOW_OUTPUT"));
    assert_eq!(finished.outcome.outputs.as_deref(), Some("{\"n\":1}"));
    let finished = master.run(2, shell("echo a=b >> $AGENTFLOW_OUTPUT; echo c=d >> $AGENTFLOW_OUTPUT"));
    assert_eq!(finished.outcome.outputs.as_deref(), Some("{\"a\":\"b\",\"c\":\"d\"}"));
    let finished = master.run(3, shell("truncate -s 67108865 \"$AGENTFLOW_OUTPUT\""));
    assert_eq!(finished.end, End::Failed(RetryOn::Error));
    assert!(finished.outcome.error.expect("an error").contains("67108864"));
    assert_eq!(std::fs::read_dir(path(&dir, "attempts")).expect("the directory").count(), 0);
}

#[test]
fn a_handler_stays_warm_and_is_replaced_when_it_fails() {
    let (master, dir) = (Master::start(), dir());
    let config = path(&dir, "worker.toml");
    let script = r#"while read -r line; do case "$line" in
        *die*) exit 7;;
        *fail*) echo '{"error": "no luck"}';;
        *hang*) sleep 60;;
        *) echo log >&2; echo "{\"pid\": $$, \"got\": $line}";;
    esac; done"#;
    let file = path(&dir, "echo.sh");
    std::fs::write(&file, script).expect("a file");
    let text = format!("[handlers.echo]\nargv = ['/bin/sh', '{}']\n", file.display());
    std::fs::write(&config, text).expect("a file");
    let flags = ["--config", config.to_str().expect("text"), "--slots", "1"];
    let mut worker = Worker::start(&master, &path(&dir, "w"), &flags);
    assert_eq!(master.wait_hello(1).handlers, ["echo"]);
    let spec = |input: &str| {
        let input = serde_json::Value::String(input.to_owned());
        Spec { input: Some(input), ..Spec::new(Payload::Handler { name: "echo".into() }) }
    };
    let pid = |task| {
        let finished = master.run(task, spec("hello"));
        let outputs = finished.outcome.outputs.unwrap_or_else(|| panic!("{:?}", finished.outcome.error));
        let outputs: serde_json::Value = serde_json::from_str(&outputs).expect("JSON");
        assert_eq!(outputs["got"], "hello");
        outputs["pid"].as_i64().expect("a number")
    };
    let first = pid(1);
    assert_eq!(pid(2), first);
    assert_eq!(master.state().log(2), "log\n");
    let finished = master.run(3, spec("fail"));
    assert_eq!(finished.outcome.error.as_deref(), Some("no luck"));
    assert_eq!(pid(4), first, "an error is an answer");
    let finished = master.run(5, spec("die"));
    assert_eq!(finished.end, End::Failed(RetryOn::Error));
    let error = finished.outcome.error.expect("an error");
    assert!(error.contains("'echo'") && error.contains("exit code 7"), "{error}");
    let second = pid(6);
    assert_ne!(second, first);
    let mut hang = spec("hang");
    hang.timeout_ms = Some(100);
    assert_eq!(master.run(7, hang).end, End::Failed(RetryOn::Timeout));
    assert!(!is_alive(i32::try_from(second).expect("a number")));
    let third = pid(8);
    assert_ne!(third, second);
    let unknown = Spec::new(Payload::Handler { name: "other".into() });
    let error = master.run(9, unknown).outcome.error.expect("an error");
    assert!(error.contains("'other'") && error.contains("echo"), "{error}");
    worker.signal(rustix::process::Signal::TERM);
    assert_eq!(worker.wait(), Some(0));
    let third = i32::try_from(third).expect("a number");
    eventually("the idle handler dies with its worker", || !is_alive(third));
}
