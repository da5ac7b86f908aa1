//! What was probably meant by a name that is unknown.

/// "did you mean …?", if one of the known names is near enough.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|known| format!("did you mean '{known}'?"))
}

/// The known name with the fewest changes of one letter, if they are few for its length.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.chars().take(LONGEST).collect();
    let allowed = (name.len() / 3).clamp(1, 3);
    let near = known.into_iter().take(MANY).filter_map(|known| {
        if known.len().abs_diff(name.iter().map(|c| c.len_utf8()).sum()) > 4 * allowed {
            return None;
        }
        let changes = distance(&name, known, allowed);
        (changes <= allowed && changes < name.len()).then_some((changes, known))
    });
    near.min_by_key(|(changes, _)| *changes).map(|(_, known)| known)
}

/// Letters of a name that are compared.
const LONGEST: usize = 128;

/// Known names that are looked at: a hint is worth about a millisecond.
const MANY: usize = 10_000;

/// How many letters must be put in, taken out, changed or swapped with a neighbour; `allowed + 1` when
/// there are more than `allowed`.
fn distance(name: &[char], known: &str, allowed: usize) -> usize {
    let known: Vec<char> = known.chars().take(LONGEST + 1).collect();
    if name.len().abs_diff(known.len()) > allowed {
        return allowed + 1;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=known.len()).collect();
    for (i, a) in name.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in known.iter().enumerate() {
            let same = usize::from(!a.eq_ignore_ascii_case(b));
            let mut least = (row[j] + same).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *a == known[j - 1] && name[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default().min(allowed + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, known: &[&str], expect: Option<&str>) {
        assert_eq!(nearest(name, known.iter().copied()), expect, "{name}");
    }

    #[test]
    fn near_names() {
        check("biuld", &["test", "build"], Some("build"));
        check("need", &["needs", "name"], Some("needs"));
        check("Build", &["build"], Some("build"));
        check("x", &["y", "X"], Some("X"));
        check("comand", &["command", "on_failure"], Some("command"));
        check("zzz", &["build", "test"], None);
        check("", &["build"], None);
    }
}
