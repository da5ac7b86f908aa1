//! Whatever is read, the reader answers.

use proptest::prelude::*;

use super::*;

/// Files with everything in them, to be damaged.
const FILES: [&str; 3] = [
    "version: 1\nname: ci\nmode: dag\nvars: {a: [1, 2], b: x}\ndefaults: {env: {A: '1'}}\ntasks:\n  build: make\n  \
     test: {run: 'x ${{ item }}', needs: build, foreach: '${{ vars.a }}', collect: '${{ self.result }}'}\n  \
     ask: {needs: [test], approval: {message: 'ok ${{ vars.b }}?'}, when: tasks.test.status == 'completed'}\n  \
     clean: &c {run: rm, on_failure: build}\n  again: {<<: *c, loop: {until: self.status == 'x', max: 3}}\n",
    "version: 1\nmode: pipeline\nitems: ['a', {b: 1}]\ntasks:\n- name: get\n  run: |\n    one ${{ item }}\n    two\n- name: put\n  \
     workflow:\n    vars: {x: 1}\n    tasks:\n      inner: {handler: {name: h, input: '${{ vars.x }}'}}\n  vars:\n    x: ${{ item }}\n",
    r#"{"version": 1, "mode": "sequential", "continue_on_failure": true, "tasks": [{"name": "a", "run": "x"},
        {"name": "b", "argv": ["x", "${{ tasks.a.outputs.y }}"], "when": "tasks.a.status != 'failed'"}]}"#,
];

/// A file in which a few pieces have been taken out, doubled, or changed.
fn damaged() -> impl Strategy<Value = String> {
    let change = (
        any::<prop::sample::Index>(),
        0_usize..12,
        0_u8..5,
        "[-a-z0-9:{}\\[\\]&*!|>'\"%@` \n\t#,?$<.~/é\u{0}]{0,4}",
    );
    (0..FILES.len(), prop::collection::vec(change, 1..6)).prop_map(|(file, changes)| {
        let mut text: Vec<char> = FILES[file].chars().collect();
        for (at, length, what, new) in changes {
            let at = at.index(text.len().max(1)).min(text.len());
            let end = (at + length).min(text.len());
            let piece: Vec<char> = text[at..end].to_vec();
            match what {
                0 => drop(text.drain(at..end)),
                1 => drop(text.splice(at..at, piece)),
                2 => text.truncate(at.max(1)),
                _ => drop(text.splice(at..end, new.chars())),
            }
        }
        text.into_iter().collect()
    })
}

/// Reads it; what is read is sound, what is refused is explained.
fn check(text: &str) {
    match read_text(text, &Server) {
        Ok(definition) => {
            assert_eq!(Definition::from_json(&definition.to_json()).as_ref(), Ok(&definition));
            if let Err(wrong) = definition.instantiate(&Map::new(), &Value::Null) {
                let _ = wrong.locate(text).to_string();
            }
        }
        Err(wrong) => {
            assert!(!wrong.is_empty());
            for one in wrong.iter() {
                assert!(!one.message.is_empty());
                let lines = text.split('\n').count() as u32;
                assert!(one.line.is_none_or(|line| (1..=lines + 1).contains(&line)), "{one:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files(text in damaged()) {
        check(&text);
    }

    #[test]
    fn any_text(text in "\\PC{0,80}") {
        check(&text);
        check(&format!("version: 1\ntasks:\n  a: {{run: x, when: {text}}}\n"));
    }
}

#[test]
fn undamaged_files() {
    for text in FILES {
        read(text);
    }
}
