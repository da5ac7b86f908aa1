//! Which names a pattern stands for, and whether two patterns have one in common.
//!
//! Both are asked of every pattern on the way to a file, in the one thread that decides: nothing here
//! allocates.

use crate::limits;

/// A row of positions in a pattern, its end included.
type Row = [bool; limits::PATTERN_BYTES + 1];

const _: () = assert!(limits::PATH_SEGMENTS <= limits::PATTERN_BYTES);

/// Whether a pattern names that file.
pub(super) fn names(pattern: &str, file: &str) -> bool {
    if !file.ends_with(end(pattern)) {
        return false;
    }
    match between(pattern, file, segment_names) {
        Some((Some(pattern), Some(file))) => fits(
            pattern.split('/'),
            file.split('/'),
            |segment| *segment == "**",
            |segment, name| segment_names(segment, name),
        ),
        Some((rest, None)) => may_be_nothing(rest),
        Some((None, Some(_))) | None => false,
    }
}

/// What everything that a pattern names ends with.
pub(super) fn end(pattern: &str) -> &str {
    let end = pattern.rfind(['*', '?']).map_or(pattern, |at| &pattern[at + 1..]);
    // `**/a` names `a` too.
    end.strip_prefix('/').unwrap_or(end)
}

/// Whether two patterns name a file in common.
pub(super) fn have_common(a: &str, b: &str) -> bool {
    let (a_end, b_end) = (end(a), end(b));
    if !a_end.ends_with(b_end) && !b_end.ends_with(a_end) {
        return false;
    }
    match between(a, b, segments_have_common) {
        Some((Some(a), Some(b))) => {
            let mut buffers = [[""; limits::PATH_SEGMENTS]; 2];
            let [a_buffer, b_buffer] = &mut buffers;
            let (a, b) = (gather(a.split('/'), a_buffer), gather(b.split('/'), b_buffer));
            meet(a, b, |segment| *segment == "**", |x, y| segments_have_common(x, y))
        }
        Some((a, b)) => may_be_nothing(a) && may_be_nothing(b),
        None => false,
    }
}

/// Segments, if any.
type Segments<'a> = Option<&'a str>;

/// What is between the first and the last `**` of two paths: before and behind, each segment of one
/// stands against one of the other, and most pairs of paths are told apart there. Nothing when they are.
fn between<'a>(
    a: &'a str,
    b: &'a str,
    fit: impl Fn(&str, &str) -> bool,
) -> Option<(Segments<'a>, Segments<'a>)> {
    let last = |path: &'a str| path.rsplit_once('/').map_or((None, path), |(rest, last)| (Some(rest), last));
    let first =
        |path: &'a str| path.split_once('/').map_or((None, path), |(first, rest)| (Some(rest), first));
    let (a, b) = trim(Some(a), Some(b), last, &fit)?;
    trim(a, b, first, &fit)
}

/// Takes off segment by segment, as long as neither is `**`. Nothing when two do not fit.
fn trim<'a>(
    mut a: Segments<'a>,
    mut b: Segments<'a>,
    take: impl Fn(&'a str) -> (Segments<'a>, &'a str),
    fit: impl Fn(&str, &str) -> bool,
) -> Option<(Segments<'a>, Segments<'a>)> {
    while let (Some(from_a), Some(from_b)) = (a, b) {
        let ((a_rest, x), (b_rest, y)) = (take(from_a), take(from_b));
        if x == "**" || y == "**" {
            break;
        }
        if !fit(x, y) {
            return None;
        }
        (a, b) = (a_rest, b_rest);
    }
    Some((a, b))
}

fn may_be_nothing(segments: Segments<'_>) -> bool {
    segments.is_none_or(|segments| segments.split('/').all(|segment| segment == "**"))
}

/// All of them: a path has no more segments, and a pattern no more letters, than there is room for; to fold
/// case adds none.
fn gather<T>(mut parts: impl Iterator<Item = T>, buffer: &mut [T]) -> &[T] {
    let mut count = 0;
    for (place, part) in buffer.iter_mut().zip(parts.by_ref()) {
        *place = part;
        count += 1;
    }
    debug_assert!(parts.next().is_none(), "a path or pattern beyond its limits");
    &buffer[..count]
}

fn is_pattern(segment: &str) -> bool {
    segment.contains(['*', '?'])
}

fn segment_names(segment: &str, name: &str) -> bool {
    let Some((before, behind)) = segment.split_once('*') else {
        return if segment.contains('?') { letters_fit(segment, name) } else { segment == name };
    };
    // Most patterns are like `*.rs`.
    if is_pattern(behind) || before.contains('?') {
        return letters_fit(segment, name);
    }
    name.strip_prefix(before).is_some_and(|rest| rest.ends_with(behind))
}

fn letters_fit(segment: &str, name: &str) -> bool {
    fits(segment.chars(), name.chars(), |part| *part == '*', |part, letter| part == letter || *part == '?')
}

/// Whether two patterns of one segment have a name in common.
fn segments_have_common(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    if !is_pattern(b) {
        return segment_names(a, b);
    }
    if !is_pattern(a) {
        return segment_names(b, a);
    }
    // Both are parts of patterns, which are not long.
    let mut buffers = [['\0'; limits::PATTERN_BYTES]; 2];
    let [a_buffer, b_buffer] = &mut buffers;
    let (a, b) = (gather(a.chars(), a_buffer), gather(b.chars(), b_buffer));
    meet(a, b, |part| *part == '*', |x, y| x == y || *x == '?' || *y == '?')
}

/// Whether a pattern can stand for these parts, if a star stands for any number of them and everything
/// else for one that fits. After a mismatch the last star takes one more: earlier ones need not, for what
/// they could take the last one can take too.
fn fits<P: Iterator + Clone, T: Iterator + Clone>(
    mut pattern: P,
    mut parts: T,
    is_star: impl Fn(&P::Item) -> bool,
    stands_for: impl Fn(&P::Item, &T::Item) -> bool,
) -> bool {
    let mut retry: Option<(P, T)> = None;
    loop {
        let (mut next, mut left) = (pattern.clone(), parts.clone());
        match (next.next(), left.next()) {
            (Some(star), _) if is_star(&star) => {
                retry = Some((next.clone(), parts.clone()));
                pattern = next;
                continue;
            }
            (None, None) => return true,
            // Nothing is left for what is still to come, however little the stars take.
            (Some(_), None) => return false,
            (Some(part), Some(one)) if stands_for(&part, &one) => {
                (pattern, parts) = (next, left);
                continue;
            }
            _ => {}
        }
        let Some((after, begin)) = &mut retry else { return false };
        if begin.next().is_none() {
            return false;
        }
        (pattern, parts) = (after.clone(), begin.clone());
    }
}

/// Whether two sequences can stand for the same one, if a star stands for any number of parts and the
/// others for one each that fits. Every pair of positions is looked at once.
fn meet<T>(a: &[T], b: &[T], is_star: impl Fn(&T) -> bool, fits: impl Fn(&T, &T) -> bool) -> bool {
    // `reach[j]`: whether the rest of `a` from here and the rest of `b` from `j` meet.
    let mut below: Row = [false; limits::PATTERN_BYTES + 1];
    let mut reach = below;
    for i in (0..=a.len()).rev() {
        for j in (0..=b.len()).rev() {
            reach[j] = match (a.get(i), b.get(j)) {
                (None, None) => true,
                (Some(x), next) if is_star(x) => below[j] || (next.is_some() && reach[j + 1]),
                (next, Some(y)) if is_star(y) => reach[j + 1] || (next.is_some() && below[j]),
                (Some(x), Some(y)) => below[j + 1] && fits(x, y),
                _ => false,
            };
        }
        below[..=b.len()].copy_from_slice(&reach[..=b.len()]);
    }
    below[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_end_is_what_everything_ends_with() {
        for (pattern, ends) in [
            ("**/*.md", ".md"),
            ("**/a.rs", "a.rs"),
            ("src/*/x", "x"),
            ("src/**", ""),
            ("a?", ""),
            ("**/test/a", "test/a"),
        ] {
            assert_eq!(end(pattern), ends, "{pattern}");
        }
    }

    /// As it is said, without any haste.
    fn meet_slowly<T: Copy + PartialEq>(a: &[T], b: &[T], star: T, fit: &dyn Fn(T, T) -> bool) -> bool {
        match (a, b) {
            ([], []) => true,
            ([x, rest @ ..], _) if *x == star => {
                meet_slowly(rest, b, star, fit) || (!b.is_empty() && meet_slowly(a, &b[1..], star, fit))
            }
            (_, [y, rest @ ..]) if *y == star => {
                meet_slowly(a, rest, star, fit) || (!a.is_empty() && meet_slowly(&a[1..], b, star, fit))
            }
            ([x, a @ ..], [y, b @ ..]) => fit(*x, *y) && meet_slowly(a, b, star, fit),
            _ => false,
        }
    }

    fn have_common_slowly(a: &str, b: &str) -> bool {
        let letters = |x: &str, y: &str| {
            let (x, y): (Vec<char>, Vec<char>) = (x.chars().collect(), y.chars().collect());
            meet_slowly(&x, &y, '*', &|p, q| p == q || p == '?' || q == '?')
        };
        let (a, b): (Vec<&str>, Vec<&str>) = (a.split('/').collect(), b.split('/').collect());
        meet_slowly(&a, &b, "**", &letters)
    }

    /// Letters of one to three bytes, the last of which some have in common.
    fn any_pattern() -> impl Strategy<Value = String> {
        let segment = prop_oneof![3 => "[aéĩ]{1,3}", 2 => "[aéｩ*?]{1,4}", 1 => Just("**".to_owned())];
        proptest::collection::vec(segment, 1..5).prop_map(|segments| segments.join("/"))
    }

    fn any_file() -> impl Strategy<Value = String> {
        proptest::collection::vec("[aéĩｩ]{1,3}", 1..6).prop_map(|segments| segments.join("/"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn haste_changes_no_answer(a in any_pattern(), b in any_pattern(), file in any_file()) {
            prop_assert_eq!(have_common(&a, &b), have_common_slowly(&a, &b), "{} {}", a, b);
            prop_assert_eq!(names(&a, &file), have_common_slowly(&a, &file), "{} {}", a, file);
            prop_assert_eq!(have_common(&file, &a), have_common_slowly(&file, &a), "{} {}", file, a);
        }
    }
}
