//! From the names of a definition back to the places of its file.

use crate::Tree;
use crate::rendering::push_key;

/// A pointer in which tasks go by their names, as a pointer into that file: there they may be items of a
/// list, and a command may be written as `run`.
pub(super) fn locate_names(pointer: &str, tree: &Tree) -> String {
    let mut located = String::new();
    let mut here = Some(tree);
    for step in pointer.split('/').skip(1) {
        let name = step.replace("~1", "/").replace("~0", "~");
        let listed = match here {
            Some(Tree::List(items)) => {
                items.iter().position(|item| item.get("name").and_then(Tree::as_str) == Some(&name))
            }
            _ => None,
        };
        let step = match here {
            _ if listed.is_some() => listed.unwrap_or_default().to_string(),
            Some(task) if task.get(&name).is_none() && name == "command" => "run".to_owned(),
            Some(task) if task.get(&name).is_none() && matches!(name.as_str(), "name" | "input") => {
                here = task.get("handler");
                push_key(&mut located, "handler");
                name
            }
            _ => name,
        };
        push_key(&mut located, &step);
        here = match here {
            Some(Tree::List(items)) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
            Some(map) => map.get(&step),
            None => None,
        };
    }
    located
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pointer: &str, expect: &str) {
        let text =
            r#"{"tasks": [{"name": "a"}, {"name": "b", "run": "x", "workflow": {"tasks": {"c": {}}}}]}"#;
        let tree = serde_json::from_str(text).expect("JSON");
        assert_eq!(locate_names(pointer, &tree), expect);
    }

    #[test]
    fn lists_and_short_forms() {
        check("/tasks/b/command", "/tasks/1/run");
        check("/tasks/b/when", "/tasks/1/when");
        check("/tasks/b/workflow/tasks/c/env/A", "/tasks/1/workflow/tasks/c/env/A");
        check("/tasks/1/when", "/tasks/1/when");
        check("/vars/x", "/vars/x");
    }
}
