//! Paths with queries.

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

/// Percent-encodes everything but unreserved characters.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
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
