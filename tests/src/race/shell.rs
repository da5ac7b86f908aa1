//! The functions of every shell of the race.

/// Sourced by the shells of agents and of the person; `RACE` is the directory of the race.
pub(super) const FUNCTIONS: &str = r#"
# Once the locks are there. Who finds somebody else in one of these places says so.
enter() {
    for place in "$@"; do
        mkdir "$RACE/held/$(printf %s "$place" | tr '/*' '__')" || { echo "two at once in $place" >&2; return 1; }
    done
    [ -n "${AGENTFLOW_ATTEMPT-}" ] || newest || return 1
    git update-ref refs/worktree/landed HEAD
}

leave() {
    for place in "$@"; do rmdir "$RACE/held/$(printf %s "$place" | tr '/*' '__')" || return 1; done
}

# Begins where main is.
newest() {
    fetched && git checkout --quiet main && git reset --quiet --hard FETCH_HEAD && git clean -fdq
}

# Others fetch into the same repository, and only one at a time is let.
fetched() {
    n=0
    until git fetch --quiet origin main 2>"$RACE/fetch.$$"; do
        n=$((n + 1))
        [ "$n" -lt 100 ] || { cat "$RACE/fetch.$$" >&2; return 1; }
        sleep 0.02
    done
}

# Says which lock is held here.
locks() {
    if [ -n "${AGENTFLOW_ATTEMPT-}" ]; then cat "$AGENTFLOW_LOCKS"; else cat "$(git rev-parse --git-dir)/agentflow/locks.json"; fi
}

fence() { locks | sed 's/.*"fence": *\([0-9]*\).*/\1/'; }

# A line as the last but one: LINE FILE.
line() { sed -i "s/^-- end --\$/$1\n&/" "$2"; }

# A new file: LINE FILE.
new() { mkdir -p "$(dirname "$2")" && echo "$1" >"$2"; }

# A line far from where others write: LINE FILE.
top() {
    mkdir -p "$(dirname "$2")"
    { echo "$1"; cat "$2" 2>/dev/null; } >"$RACE/top.$$"
    cat "$RACE/top.$$" >"$2"
}

# Git with its hooks, or round them: HOW COMMAND WORDS.
round() {
    how=$1 verb=$2
    shift 2
    case $how in
        not) git "$verb" "$@" ;;
        flag) git "$verb" --no-verify "$@" ;;
        path) git -c core.hooksPath=/dev/null "$verb" "$@" ;;
        mode) AGENTFLOW_LOCK_MODE=off git "$verb" "$@" ;;
    esac
}

# Pushes what has not been pushed yet: HOW. Whoever finds that main has moved puts his commits on top of it
# and tries again. An attempt stays where it began, since all that is new there counts as its own.
land() {
    branch=$(git symbolic-ref --quiet --short HEAD)
    mine=$(git rev-parse HEAD)
    moved=0
    until said=$(round "$1" push --quiet origin HEAD:refs/heads/main 2>&1); do
        case $said in
            *'(fetch first)'* | *'(non-fast-forward)'* | *'cannot lock ref'* | *'failed to update ref'*) ;;
            *) git checkout --quiet "$branch"; printf '%s\n' "$said" >&2; return 1 ;;
        esac
        moved=$((moved + 1))
        [ "$moved" -lt 50 ] || { git checkout --quiet "$branch"; echo "main moves all the time" >&2; return 1; }
        again || { git cherry-pick --abort; git rebase --abort; git checkout --quiet "$branch"; return 1; }
    done
    git checkout --quiet "$branch"
    git update-ref refs/worktree/landed HEAD
    echo "moved $moved"
}

again() {
    fetched || return 1
    if [ -n "${AGENTFLOW_ATTEMPT-}" ]; then
        git checkout --quiet --detach FETCH_HEAD && git cherry-pick "refs/worktree/landed..$mine" >/dev/null
    else
        git rebase --quiet FETCH_HEAD
    fi
}

# Commits what may be, and what was written: LINE.
commit() { git add --all && git commit --quiet --message "$1"; }

# Strays, and takes it back if it was stopped: LINE FILE, how commit and push go round hooks, FENCE.
stray() {
    start=$(git rev-parse HEAD)
    top "$1" "$2"
    git add --all
    if [ -n "${5-}" ]; then
        round "$3" commit --quiet --message "$1" --message "AgentFlow-Fence: $5" && land "$4"
    else
        round "$3" commit --quiet --message "$1" && land "$4"
    fi
    code=$?
    git reset --quiet --hard "$start"
    git clean -fdq
    return $code
}

# Leaves something behind: LINE FILE HOW.
left() {
    top "$1" "$2"
    [ "$3" != path ] || { git add --all && round flag commit --quiet --message "$1"; }
}

# One thing after another in the shell of a person: NAME required|- COMMAND.
step() {
    if (eval "$3") >"$OUT/$1.said" 2>&1; then echo 0 >"$OUT/$1.code"; return; fi
    echo 1 >"$OUT/$1.code"
    [ "$2" != required ] || exit 1
}
"#;

/// The hook of the origin that keeps the repository of the worker current before a push is answered.
/// `HUB` stands for it.
pub(super) const POST_RECEIVE: &str = r#"#!/bin/sh
unset $(git rev-parse --local-env-vars)
cd 'HUB' || exit 1
n=0
until git fetch --quiet origin refs/heads/main:refs/heads/main 2>/dev/null; do
    n=$((n + 1))
    [ "$n" -lt 100 ] || { echo 'the repository of the worker is stale' >&2; exit 1; }
    sleep 0.02
done
"#;
