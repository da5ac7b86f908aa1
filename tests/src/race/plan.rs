//! What everybody is going to do: by the seed alone.

use std::fmt;

use crate::harness::Random;

/// What is locked: files, and a directory for new ones.
pub(super) const PLACES: [&str; 6] =
    ["src/a.txt", "src/b.txt", "src/c.txt", "docs/d.txt", "docs/e.txt", "notes/**"];

/// Everybody.
pub(super) const CONTENDERS: [Who; 3] = [Who::Agent("one"), Who::Agent("two"), Who::Person("ann")];

/// Rounds beyond the first of each kind.
const MORE: usize = 5;

/// Of a hundred rounds, those with a second stray.
const SECOND: u64 = 30;

/// Somebody who races.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Who {
    /// By tasks.
    Agent(&'static str),
    /// By a shell.
    Person(&'static str),
}

impl Who {
    pub(super) fn is_agent(self) -> bool {
        matches!(self, Self::Agent(_))
    }

    /// What it has to try.
    pub(super) fn kinds(self) -> &'static [Kind] {
        if self.is_agent() { &AGENT } else { &PERSON }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Agent(name) | Self::Person(name)) = self;
        f.write_str(name)
    }
}

/// What keeps somebody from straying.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Layer {
    /// The hook that the agent calls before a tool.
    Hook,
    /// The hook `pre-commit`.
    Commit,
    /// The hook `pre-push`.
    Push,
    /// The worker, when an attempt ends.
    Worker,
    /// The guard at the origin.
    Server,
}

/// All of them.
pub(super) const LAYERS: [Layer; 5] = [Layer::Hook, Layer::Commit, Layer::Push, Layer::Worker, Layer::Server];

/// A way to stray. The files are somebody else's or nobody's, unless it is said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    /// A tool edits a file.
    Edit,
    /// A tool writes a file.
    Write,
    /// The shell writes a file, and it is committed.
    Commit,
    /// The same, past the hooks of the commit, and pushed.
    Push,
    /// The same, past all hooks on this side.
    Server,
    /// The same, and the commit names the fence of a lock that is for other files.
    Foreign,
    /// The same, and the fence was never given out.
    Unknown,
    /// The contender's own file, under the fence of somebody who had it before.
    Stale,
    /// A file is left changed in the worktree when the attempt ends.
    Left,
    /// [`Self::Commit`] by somebody who has no lock at all.
    BareCommit,
    /// [`Self::Push`] by the same.
    BarePush,
    /// [`Self::Server`] by the same.
    BareServer,
}

const AGENT: [Kind; 9] = [
    Kind::Edit,
    Kind::Write,
    Kind::Commit,
    Kind::Push,
    Kind::Server,
    Kind::Foreign,
    Kind::Unknown,
    Kind::Stale,
    Kind::Left,
];

const PERSON: [Kind; 9] = [
    Kind::Commit,
    Kind::Push,
    Kind::Server,
    Kind::Foreign,
    Kind::Unknown,
    Kind::Stale,
    Kind::BareCommit,
    Kind::BarePush,
    Kind::BareServer,
];

impl Kind {
    /// Who has to stop it.
    pub(super) fn layer(self) -> Layer {
        match self {
            Self::Edit | Self::Write => Layer::Hook,
            Self::Commit | Self::BareCommit => Layer::Commit,
            Self::Push | Self::BarePush => Layer::Push,
            Self::Left => Layer::Worker,
            Self::Server | Self::BareServer | Self::Foreign | Self::Unknown | Self::Stale => Layer::Server,
        }
    }

    /// Whether nothing is locked for it.
    pub(super) fn is_bare(self) -> bool {
        matches!(self, Self::BareCommit | Self::BarePush | Self::BareServer)
    }

    /// Whether it may be a second one of a round.
    fn is_light(self) -> bool {
        !self.is_bare() && !matches!(self, Self::Stale | Self::Left)
    }
}

/// When in a round somebody strays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moment {
    /// Before anything is changed.
    First,
    /// When what may be changed is committed and not pushed.
    Between,
    /// When it is pushed.
    Last,
}

/// One stray.
#[derive(Clone, Debug)]
pub(super) struct Straying {
    /// In which way.
    pub(super) kind: Kind,
    /// When.
    pub(super) moment: Moment,
    /// Of these [`PLACES`].
    pub(super) place: &'static str,
    /// How hooks are gone round: as the shell's functions call it.
    pub(super) how: &'static str,
}

/// What is done under one lock, or under none.
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// What is locked and changed.
    pub(super) places: Vec<&'static str>,
    /// What is tried besides.
    pub(super) strays: Vec<Straying>,
}

/// Everything that one contender does.
pub(super) fn rounds(seed: u64, who: Who) -> Vec<Round> {
    let at = CONTENDERS.iter().position(|other| *other == who).unwrap_or_default() as u64;
    let mut random = Random::new(seed ^ (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut kinds = who.kinds().to_vec();
    for _ in 0..MORE {
        kinds.push(any(&mut random, who.kinds()));
    }
    shuffle(&mut random, &mut kinds);
    // Somebody must have had a lock before whose fence is old.
    let (mut kinds, stale): (Vec<_>, Vec<_>) = kinds.into_iter().partition(|kind| *kind != Kind::Stale);
    kinds.extend(stale);
    let half = kinds.len() / 2;
    shuffle(&mut random, &mut kinds[half..]);
    kinds.into_iter().map(|kind| round(&mut random, who, kind)).collect()
}

fn round(random: &mut Random, who: Who, kind: Kind) -> Round {
    let mut places = PLACES.to_vec();
    shuffle(random, &mut places);
    let count = if kind.is_bare() { 0 } else { usize::try_from(random.between(1, 3)).unwrap_or(1) };
    let others = places.split_off(count);
    let mut strays = vec![straying(random, kind, &others)];
    if kind.is_light() && random.percent(SECOND) {
        let light: Vec<Kind> = who.kinds().iter().copied().filter(|kind| kind.is_light()).collect();
        let second = any(random, &light);
        strays.push(straying(random, second, &others));
    }
    Round { places, strays }
}

fn straying(random: &mut Random, kind: Kind, others: &[&'static str]) -> Straying {
    let moment = any(random, &[Moment::First, Moment::Between, Moment::Last]);
    let how = any(random, &["flag", "path", "mode"]);
    // What is edited must be there.
    let there: Vec<&'static str> =
        others.iter().copied().filter(|place| kind != Kind::Edit || !place.ends_with("/**")).collect();
    Straying { kind, moment, place: any(random, &there), how }
}

fn any<T: Copy>(random: &mut Random, list: &[T]) -> T {
    let last = list.len() as u64 - 1;
    list[usize::try_from(random.between(0, last)).unwrap_or(0)]
}

fn shuffle<T>(random: &mut Random, list: &mut [T]) {
    for at in (1..list.len()).rev() {
        list.swap(at, usize::try_from(random.between(0, at as u64)).unwrap_or(at));
    }
}

/// The file of a place that an edit of that name is in.
pub(super) fn file(place: &str, name: &str) -> String {
    match place.strip_suffix("**") {
        Some(directory) => format!("{directory}{name}.txt"),
        None => place.to_owned(),
    }
}

/// Whether a path lies in a place.
pub(super) fn covers(place: &str, path: &str) -> bool {
    match place.strip_suffix("**") {
        Some(directory) => path.starts_with(directory),
        None => place == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_tries_everything_whatever_the_seed() {
        for seed in 0..200 {
            for who in CONTENDERS {
                let rounds = rounds(seed, who);
                let tried: Vec<Kind> =
                    rounds.iter().flat_map(|round| &round.strays).map(|stray| stray.kind).collect();
                assert!(who.kinds().iter().all(|kind| tried.contains(kind)), "{seed} {who}: {tried:?}");
                for round in &rounds {
                    let is_bare = round.strays.iter().all(|stray| stray.kind.is_bare());
                    assert_eq!(round.places.is_empty(), is_bare);
                    for stray in &round.strays {
                        assert!(!round.places.contains(&stray.place), "{seed}: {round:?}");
                    }
                }
                let stale = |round: &Round| round.strays[0].kind == Kind::Stale;
                assert!(rounds.iter().position(stale).is_some_and(|at| at >= rounds.len() / 2));
            }
        }
        let kinds = |seed| -> Vec<Kind> {
            rounds(seed, CONTENDERS[0]).iter().map(|round| round.strays[0].kind).collect()
        };
        assert_eq!(kinds(5), kinds(5));
        assert!((0..20).any(|seed| kinds(seed) != kinds(5)));
    }

    #[test]
    fn all_layers_are_tried() {
        for layer in LAYERS {
            assert!(CONTENDERS.iter().any(|who| who.kinds().iter().any(|kind| kind.layer() == layer)));
        }
    }

    #[test]
    fn a_directory_has_a_file_for_each_name() {
        assert_eq!(
            (file("notes/**", "x"), file("src/a.txt", "x")),
            ("notes/x.txt".into(), "src/a.txt".into())
        );
        assert!(covers("notes/**", "notes/x.txt") && covers("src/a.txt", "src/a.txt"));
        assert!(!covers("notes/**", "src/a.txt") && !covers("src/a.txt", "src/a.txt2"));
    }
}
