//! Paths with queries.

use agentflow_protocol::percent::encode;

/// A path with a query; empty values are left out.
pub(crate) fn with_query(path: &str, parameters: &[(&str, String)]) -> String {
    let mut text = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        text.push(separator);
        text.push_str(name);
        text.push('=');
        text.push_str(&encode(value));
        separator = '&';
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let path =
            with_query("/a", &[("label", "os=a b&c".into()), ("no", String::new()), ("x", "é".into())]);
        assert_eq!(path, "/a?label=os%3Da%20b%26c&x=%C3%A9");
    }
}
