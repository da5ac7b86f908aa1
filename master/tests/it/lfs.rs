//! Git LFS: its locking API, and the real client where there is one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use agentflow_master::Config;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::locks::lock;
use crate::support::{Answer, Client, TestMaster};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PLACE: &str = "/lfs/example.com/team/app";

impl Client {
    /// What a user of Git LFS asks.
    fn lfs(&self, user: &str, method: &str, path: &str, body: &Value) -> Answer {
        let basic = format!("Basic {}", STANDARD.encode(format!("{user}:")));
        let headers: &[(&str, &str)] =
            &[("authorization", &basic), ("content-type", "application/vnd.git-lfs+json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.request(method, path, headers, body.as_bytes());
        assert_eq!(answer.headers["content-type"], "application/vnd.git-lfs+json", "{}", answer.text);
        answer
    }

    fn lfs_locks(&self, query: &str) -> Value {
        let answer = self.lfs("alice", "GET", &format!("{PLACE}/locks{query}"), &Value::Null);
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.body
    }
}

fn of(answer: Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text);
    answer.body
}

#[test]
fn files_are_locked_listed_and_unlocked() {
    let master = TestMaster::start();
    let client = &master.client;
    let post =
        |user: &str, path: &str, body: Value| client.lfs(user, "POST", &format!("{PLACE}{path}"), &body);
    let alices =
        of(post("alice", "/locks", json!({"path": "art/a.psd", "ref": {"name": "refs/heads/x"}})), 201);
    let lock_a = &alices["lock"];
    assert_eq!((&lock_a["path"], &lock_a["owner"]), (&json!("art/a.psd"), &json!({"name": "alice"})));
    let taken = of(post("bob", ".git/locks", json!({"path": "art/a.psd"})), 409);
    assert_eq!(&taken["lock"], lock_a);
    assert!(taken["message"].as_str().is_some_and(|text| text.contains("alice")), "{taken}");
    let bobs = of(post("bob", "/info/lfs/locks", json!({"path": "art/b.psd"})), 201);
    // They are locks as all others, and last until they are unlocked.
    let page = client.get("/api/v2/locks?repo=example.com/team/app").expect(200);
    assert_eq!((&page["locks"][0]["id"], &page["locks"][0]["ttl_ms"]), (&lock_a["id"], &Value::Null));
    client.lock(&lock("carol", &["art/**"])).expect(409);
    client.locked("carol", &["docs/x.md", "docs/y.md"]);
    assert_eq!(client.lfs_locks("")["locks"].as_array().map(Vec::len), Some(4));
    assert_eq!(client.lfs_locks("?path=art/a.psd&refspec=refs/heads/x")["locks"], json!([lock_a]));
    assert_eq!(client.lfs_locks("?path=art")["locks"], json!([]));
    let id = lock_a["id"].as_str().expect("an id");
    assert_eq!(client.lfs_locks(&format!("?id={id}"))["locks"], json!([lock_a]));
    assert_eq!(client.lfs_locks("?id=5")["locks"], json!([]));
    let first = client.lfs_locks("?limit=1");
    assert_eq!(first["locks"], json!([lock_a]));
    let cursor = first["next_cursor"].as_str().expect("there are more");
    assert_eq!(client.lfs_locks(&format!("?limit=1&cursor={cursor}"))["locks"], json!([bobs["lock"]]));
    let verified = of(post("alice", "/locks/verify", json!({"ref": {"name": "refs/heads/x"}})), 200);
    assert_eq!(verified["ours"], json!([lock_a]));
    assert_eq!(verified["theirs"].as_array().map(Vec::len), Some(3));
    of(post("bob", &format!("/locks/{id}/unlock"), json!({})), 403);
    assert_eq!(
        &of(post("alice", &format!("/locks/{id}/unlock"), json!({"force": false})), 200)["lock"],
        lock_a
    );
    of(post("alice", &format!("/locks/{id}/unlock"), json!({})), 404);
    let path = format!("/locks/{}/unlock", bobs["lock"]["id"].as_str().expect("an id"));
    of(post("alice", &path, json!({"force": true})), 200);
    let ended = client.get("/api/v2/events?limit=1000").expect(200);
    let broken = |event: &&Value| event["type"] == "lock.broken";
    let broken = ended["events"].as_array().expect("a list").iter().find(broken).expect("an event");
    assert!(broken["data"]["reason"].as_str().is_some_and(|text| text.contains("alice")), "{broken}");
    let together = client.lfs_locks("?path=docs/x.md");
    let path = format!("/locks/{}/unlock", together["locks"][0]["id"].as_str().expect("an id"));
    of(post("carol", &path, json!({})), 403);
    of(post("carol", "/locks", json!({"path": "../x"})), 422);
    of(post("carol", "/locks", json!({"path": 5})), 422);
    let nobody = client.request("POST", "/lfs/other/locks", &[], br#"{"path": "a"}"#);
    assert_eq!(of(nobody, 201)["lock"]["owner"]["name"], "lfs");
}

#[test]
fn objects_are_kept_elsewhere() {
    let master = TestMaster::start();
    let path = format!("{PLACE}/objects/batch");
    let nowhere = of(master.client.lfs("alice", "POST", &path, &json!({})), 501);
    assert!(nowhere["message"].as_str().is_some_and(|text| text.contains("--lfs-upstream")), "{nowhere}");
    let upstream = Some("https://{repo}.git/info/lfs/".to_owned());
    let master = TestMaster::start_with(|config| config.lfs_upstream = upstream);
    let agent: ureq::Agent =
        ureq::Agent::config_builder().max_redirects(0).http_status_as_error(false).build().into();
    let answer = agent.post(format!("{}{path}", master.client.url)).send("{}").expect("an answer");
    assert_eq!(answer.status(), 307);
    assert_eq!(answer.headers()["location"], "https://example.com/team/app.git/info/lfs/objects/batch");
}

#[test]
fn the_token_is_the_password() {
    let master = with_token(|_| {});
    let client = Client::new(&format!("http://127.0.0.1:{}", master.address().port()));
    let ask = |authorization: Option<String>| {
        let headers: Vec<(&str, &str)> =
            authorization.iter().map(|text| ("authorization", text.as_str())).collect();
        client.request("POST", &format!("{PLACE}/locks"), &headers, br#"{"path": "a"}"#)
    };
    let refused = ask(None);
    assert!(refused.headers["www-authenticate"].to_str().is_ok_and(|text| text.starts_with("Basic")));
    assert!(of(refused, 401)["message"].is_string());
    let basic = |text: String| Some(format!("Basic {}", STANDARD.encode(text)));
    of(ask(basic("alice:wrong".to_owned())), 401);
    of(ask(basic(TOKEN.to_owned())), 401);
    assert_eq!(of(ask(basic(format!("alice:{TOKEN}"))), 201)["lock"]["owner"]["name"], "alice");
    let elsewhere = client.request(
        "GET",
        "/api/v2/locks",
        &[("authorization", &basic(format!("alice:{TOKEN}")).unwrap_or_default())],
        b"",
    );
    elsewhere.expect(401);
}

fn with_token(change: impl FnOnce(&mut Config)) -> TestMaster {
    TestMaster::start_with(|config| {
        change(config);
        let path = config.data_dir.with_file_name("token");
        std::fs::write(&path, TOKEN).expect("written");
        config.token_file = Some(path);
    })
}

/// A server of objects that has everything already: it says so, and passes on what it was sent.
fn upstream(seen: mpsc::Sender<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // The client may have gone.
            let _ = seen.send(answer_batch(stream.expect("a connection")));
        }
    });
    format!("http://{address}")
}

fn answer_batch(stream: TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let asked: Value = serde_json::from_slice(&body).expect("JSON");
    let answer = json!({ "objects": asked["objects"] }).to_string();
    let mut stream = reader.into_inner();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.git-lfs+json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{answer}",
        answer.len()
    )
    .expect("written");
    head
}

/// A clone of somebody, who logs in with the master's token.
struct Clone<'a> {
    home: &'a Path,
    user: &'static str,
}

impl Clone<'_> {
    /// Runs git there: whether it went well, and what it said.
    fn git(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new("git");
        command
            .current_dir(self.home.join(self.user))
            .args(arguments)
            .env("HOME", self.home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0");
        let output = command.output().expect("git runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    #[track_caller]
    fn well(&self, arguments: &[&str]) -> String {
        let (well, said) = self.git(arguments);
        assert!(well, "{arguments:?}: {said}");
        said
    }

    fn write(&self, text: &str) {
        let file = self.home.join(self.user).join("a.psd");
        if file.exists() {
            // It is not to be written to without a lock.
            std::fs::remove_file(&file).expect("removed");
        }
        std::fs::write(file, text).expect("written");
    }
}

fn clone_of<'a>(home: &'a Path, user: &'static str, master: &str, upstream: &str) -> Clone<'a> {
    std::fs::create_dir(home.join(user)).expect("a directory");
    let clone = Clone { home, user };
    clone.well(&["init", "--quiet", "--initial-branch", "main"]);
    clone.well(&["lfs", "install", "--local"]);
    let helper = |password: &str| format!("!f() {{ echo username={user}; echo password={password}; }}; f");
    let of_master = format!("credential.{master}.helper");
    let of_upstream = format!("credential.{upstream}.helper");
    let url = format!("{master}{PLACE}");
    let verify = format!("lfs.{url}.locksverify");
    let origin = home.join("origin.git").display().to_string();
    for (name, value) in [
        ("user.name", user),
        ("user.email", "user@example.com"),
        (&of_master, &helper(TOKEN)),
        (&of_upstream, &helper("other")),
        ("lfs.url", &url),
        (&verify, "true"),
        ("remote.origin.url", &origin),
        ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
    ] {
        clone.well(&["config", name, value]);
    }
    clone
}

#[test]
fn the_client_of_git_lfs_works() {
    if !Command::new("git").args(["lfs", "version"]).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: git lfs is not installed");
        return;
    }
    let (seen, asked) = mpsc::channel();
    let upstream = upstream(seen);
    let master = with_token(|config| config.lfs_upstream = Some(format!("{upstream}/{{repo}}")));
    let home = tempfile::tempdir().expect("a directory");
    let made =
        Command::new("git").args(["init", "--quiet", "--bare"]).arg(home.path().join("origin.git")).status();
    assert!(made.expect("git runs").success());
    let [alice, bob] =
        ["alice", "bob"].map(|user| clone_of(home.path(), user, &master.client.url, &upstream));
    alice.well(&["lfs", "track", "--lockable", "*.psd"]);
    alice.write("one");
    alice.well(&["add", "--all"]);
    alice.well(&["commit", "--quiet", "--message", "one"]);
    alice.well(&["push", "origin", "main"]);
    let head = asked.recv_timeout(crate::support::SOON).expect("asked for objects");
    assert!(head.starts_with("POST /example.com/team/app/objects/batch "), "{head}");
    assert!(
        !head.contains(&STANDARD.encode(format!("alice:{TOKEN}"))),
        "our token goes nowhere else: {head}"
    );

    alice.well(&["lfs", "lock", "a.psd"]);
    assert!(alice.well(&["lfs", "locks"]).contains("alice"));
    let verified: Value =
        serde_json::from_str(&alice.well(&["lfs", "locks", "--verify", "--json"])).expect("JSON");
    assert_eq!((&verified["ours"][0]["path"], &verified["theirs"]), (&json!("a.psd"), &json!([])));

    // His copy has no objects, and needs none.
    bob.well(&["config", "lfs.fetchexclude", "*"]);
    bob.well(&["fetch", "--quiet", "origin"]);
    bob.well(&["reset", "--quiet", "--soft", "origin/main"]);
    bob.well(&["checkout", "--quiet", "HEAD", ".gitattributes"]);
    let (well, said) = bob.git(&["lfs", "lock", "a.psd"]);
    assert!(!well && said.contains("alice"), "{said}");
    bob.write("two");
    bob.well(&["add", "a.psd"]);
    bob.well(&["commit", "--quiet", "--message", "two"]);
    let (well, said) = bob.git(&["push", "origin", "main"]);
    assert!(!well && said.contains("a.psd - alice"), "what another has locked is not pushed: {said}");
    let (well, said) = bob.git(&["lfs", "unlock", "a.psd"]);
    assert!(!well && said.contains("alice"), "{said}");
    bob.well(&["lfs", "unlock", "--force", "a.psd"]);
    bob.well(&["push", "origin", "main"]);
    let (well, said) = alice.git(&["lfs", "unlock", "a.psd"]);
    assert!(!well, "it is broken: {said}");
}
