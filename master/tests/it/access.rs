//! Who may come in.

use crate::support::TestMaster;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn a_token_is_required_everywhere_but_for_health() {
    let master = TestMaster::start_with(|config| {
        let path = config.data_dir.with_file_name("token");
        std::fs::write(&path, format!("{TOKEN}\n")).expect("written");
        config.listen = "0.0.0.0:0".to_owned();
        config.token_file = Some(path);
    });
    let client = crate::support::Client::new(&format!("http://127.0.0.1:{}", master.address().port()));
    client.get("/health").expect(200);
    for path in
        ["/ready", "/api/v2/tasks", "/metrics", "/openapi.json", "/", "/nothing", "/api/v2/workers/connect"]
    {
        let answer = client.get(path);
        assert_eq!(answer.headers["www-authenticate"], "Bearer", "{path}");
        answer.expect(401);
    }
    client.with_token(&TOKEN.replace('0', "1")).get("/ready").expect(401);
    let known = client.with_token(TOKEN);
    known.get("/ready").expect(200);
    known.post("/api/v2/tasks", r#"{"kind": "noop"}"#).expect(201);
}

#[test]
fn pages_from_elsewhere_cannot_submit() {
    let master = TestMaster::start();
    let post = |origin: &str| {
        master.client.request("POST", "/api/v2/tasks", &[("origin", origin)], br#"{"kind": "noop"}"#)
    };
    post("https://example.org").expect(403);
    post("http://localhost:6767").expect(201);
}
