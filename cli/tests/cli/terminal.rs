//! The tree on a terminal that is one: a pseudo-terminal.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::{Home, file};

/// The two ends of a terminal.
fn terminal(rows: u16, columns: u16) -> (File, File) {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&near).and_then(|()| unlockpt(&near)).expect("a terminal of ours");
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&near, size).expect("a size");
    let name = ptsname(&near, Vec::new()).expect("a name").into_string().expect("text");
    let far = OpenOptions::new().read(true).write(true).open(name).expect("the other end");
    (near.into(), far)
}

fn stdio(far: &File) -> Stdio {
    OwnedFd::from(far.try_clone().expect("another")).into()
}

/// What appears on a terminal, and the exit code; `meanwhile` gets what has appeared so far and the
/// process.
fn on_terminal(
    home: &Home,
    size: (u16, u16),
    words: &[&str],
    mut meanwhile: impl FnMut(&str, Pid),
) -> (String, Option<i32>) {
    let (mut near, far) = terminal(size.0, size.1);
    let mut command = home.command(words);
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    command.stdin(stdio(&far)).stdout(stdio(&far)).stderr(stdio(&far));
    let mut child = command.spawn().expect("the binary starts");
    drop((command, far));
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    // A terminal that nobody has open any more is an error to read.
    while let Ok(count @ 1..) = near.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
        meanwhile(&String::from_utf8_lossy(&seen), Pid::from_child(&child));
    }
    let status = child.wait().expect("a child");
    (String::from_utf8_lossy(&seen).into_owned(), status.code())
}

/// The text without the sequences that move the cursor and colour it.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest);
    }
    plain + rest
}

const SLOW: &str = "\
version: 1
name: slow
tasks:
  build: for i in 1 2 3; do echo step $i; sleep 0.2; done
  test: {needs: build, foreach: [a, b, c], run: 'echo tried ${{ item }}; test ${{ item }} != b'}
  ship: {needs: test, run: echo shipped}
";

#[test]
fn a_tree_is_drawn_again_and_again_but_not_too_often() {
    let home = Home::new();
    let path = file(&home, "slow.yaml", SLOW);
    let since = Instant::now();
    let (seen, code) = on_terminal(&home, (24, 80), &["run", "--embedded", &path], |_, _| {});
    let frames = since.elapsed().as_millis() / 100 + 2;
    assert_eq!(code, Some(1), "{seen}");
    let drawn = seen.matches("run 1 slow").count() as u128;
    assert!((3..=frames + 1).contains(&drawn), "{drawn} pictures in {frames} frames");
    let text = plain(&seen);
    assert!(text.contains("step 1") || text.contains("step 2"), "the last line while it runs: {text}");
    let last = text.rsplit("run 1 slow").nth(1).expect("two pictures");
    for line in [
        "✔ build",
        "step 3",
        "✘ test",
        "1 of 3 items failed: test[1]",
        "✔ test[0]",
        "✘ test[1]",
        "exit code 1",
        "– ship",
    ] {
        assert!(last.contains(line), "not in the last picture: {line} in {last}");
    }
    assert!(last.contains("failed    test[1]") && last.contains("| tried b"), "{last}");
    assert!(seen.contains("\x1b[32m"), "colours");
    assert!(text.trim_end().ends_with(" s)"), "a summary: {text}");
    // Lines for pipes are not printed beside it.
    assert!(!text.contains("build running"), "{text}");
}

#[test]
fn a_small_terminal_gets_counts() {
    let home = Home::new();
    let items: Vec<u32> = (0..40).collect();
    let text = format!("version: 1\nname: many\ntasks:\n  each: {{foreach: {items:?}, run: 'true'}}\n");
    let path = file(&home, "many.yaml", &text);
    let (seen, code) = on_terminal(&home, (10, 60), &["run", "--embedded", &path], |_, _| {});
    assert_eq!(code, Some(0), "{seen}");
    let text = plain(&seen);
    assert!(text.contains("40 of 40 done") && !text.contains("each[39]"), "{text}");
}

#[test]
fn no_colours_where_none_are_wanted_and_no_tree_where_none_can_be() {
    let home = Home::new();
    let path = file(&home, "w.yaml", "version: 1\nname: w\ntasks: {a: echo a}\n");
    let (near, far) = terminal(24, 80);
    let mut command = home.command(&["run", "--embedded", &path]);
    command.env("TERM", "dumb").stdout(stdio(&far)).stderr(stdio(&far));
    let status = command.status().expect("the binary starts");
    drop((command, far));
    assert!(status.success());
    let mut seen = Vec::new();
    // The end is an error where the other end is closed.
    let _ = (&near).read_to_end(&mut seen);
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(seen.contains("a completed") && !seen.contains('\x1b'), "{seen}");
}

#[test]
fn an_interruption_leaves_the_tree_and_says_how_to_go_on() {
    let home = Home::new();
    let path = file(&home, "w.yaml", "version: 1\nname: w\ntasks: {a: sleep 60}\n");
    let mut sent = false;
    let (seen, code) = on_terminal(&home, (24, 80), &["run", "--embedded", &path], |seen, pid| {
        if !sent && plain(seen).contains("1 done") && plain(seen).contains(" a  ") {
            sent = true;
            kill_process(pid, Signal::INT).expect("it runs");
        }
    });
    assert_eq!(code, Some(130), "{seen}");
    let text = plain(&seen);
    assert!(text.contains("interrupted; what was not done waits"), "{text}");
    assert!(
        !text.split("interrupted;").nth(1).expect("said").contains("run 1 w"),
        "nothing is drawn below: {text}"
    );
}

#[test]
fn a_master_that_is_away_is_said_in_the_tree() {
    let home = Home::new();
    let up = home.up("127.0.0.1:0");
    let gate = home.path("gate");
    let text =
        format!("version: 1\nname: w\ntasks:\n  a: until test -e {}; do sleep 0.02; done\n", gate.display());
    let path = file(&home, "w.yaml", &text);
    let (url, address) = (up.url.clone(), up.address());
    let (mut first, mut second) = (Some(up), None);
    let words = ["--master", &url, "run", &path];
    let (seen, code) = on_terminal(&home, (24, 80), &words, |seen, _| {
        let seen = plain(seen);
        if seen.contains("running")
            && let Some(up) = first.take()
        {
            up.kill();
        }
        if seen.contains("no answer from") && second.is_none() {
            std::fs::write(&gate, "").expect("written");
            second = Some(home.up(&address));
        }
    });
    assert_eq!(code, Some(0), "{seen}");
    assert!(!plain(&seen).contains("trying again"), "{seen}");
}

#[test]
fn a_tree_beside_a_pipe_is_drawn_when_it_is_asked_for() {
    let home = Home::new();
    let path = file(&home, "w.yaml", "version: 1\nname: w\ntasks: {a: sleep 0.3}\n");
    let check = |words: &[&str], expect: bool| {
        let (mut near, far) = terminal(24, 80);
        let mut command = home.command(words);
        command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(stdio(&far));
        let child = command.spawn().expect("the binary starts");
        drop((command, far));
        let mut seen = Vec::new();
        let _ = near.read_to_end(&mut seen);
        let output = child.wait_with_output().expect("a child");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(out.contains("a completed") && !out.contains('\x1b'), "{out}");
        let seen = plain(&String::from_utf8_lossy(&seen));
        assert_eq!(seen.contains("1 of 1 done"), expect, "{seen}");
    };
    check(&["run", "--embedded", &path, "--watch"], true);
    check(&["run", "--embedded", &path], false);
}
