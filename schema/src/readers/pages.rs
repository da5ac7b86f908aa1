//! Pages of rows with long texts.

use agentflow_core::limits;

/// Texts on a page, in characters or bytes, unless one alone has more: a workflow may have 32 MiB.
const PAGE_CHARS: i64 = 8 << 20;

/// Where a page ends that begins with the first of these, each with the length of its text; and whether
/// another one follows.
pub(super) fn end_of_page<N: Copy + Default>(sizes: &[(N, i64)], limit: usize) -> (N, bool) {
    let mut chars = 0;
    let mut last = N::default();
    for (place, (number, length)) in sizes.iter().enumerate() {
        chars += length;
        if place > 0 && (place == limit || chars > PAGE_CHARS) {
            return (last, true);
        }
        last = *number;
    }
    (last, false)
}

/// One more than a page has at most.
pub(super) fn enough(limit: usize) -> i64 {
    i64::try_from(limit.clamp(1, limits::PAGE) + 1).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_with_its_limit_or_before_it_is_too_long() {
        let small = [(1, 10), (2, 10), (3, 10)];
        assert_eq!(end_of_page::<i32>(&[], 2), (0, false));
        assert_eq!(end_of_page(&small, 2), (2, true));
        assert_eq!(end_of_page(&small, 3), (3, false));
        let large = [(4, PAGE_CHARS + 1), (5, PAGE_CHARS), (6, 1)];
        assert_eq!(end_of_page(&large, 100), (4, true), "one alone may have more");
        assert_eq!(end_of_page(&large[1..], 100), (5, true));
        assert_eq!(end_of_page(&large[2..], 100), (6, false));
    }
}
