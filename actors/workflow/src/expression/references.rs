//! What an expression reads, known without evaluating it.

/// A name that an expression's chains begin with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Root {
    /// `vars`: the workflow's variables.
    Vars,
    /// `inputs`: what the run was started with.
    Inputs,
    /// `tasks`: what is known of the tasks before.
    Tasks,
    /// `item`: of a `foreach`, or of a pipeline with items.
    Item,
    /// `index`: the item's position, from 0.
    Index,
    /// `run`: the run itself.
    Run,
    /// `self`: the task's own last time, in `loop.until`.
    Own,
    /// `loop`: how often the task has run, in a task with `loop`.
    Loop,
}

impl Root {
    /// Every root.
    pub const ALL: [Self; 8] =
        [Self::Vars, Self::Inputs, Self::Tasks, Self::Item, Self::Index, Self::Run, Self::Own, Self::Loop];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vars => "vars",
            Self::Inputs => "inputs",
            Self::Tasks => "tasks",
            Self::Item => "item",
            Self::Index => "index",
            Self::Run => "run",
            Self::Own => "self",
            Self::Loop => "loop",
        }
    }

    /// The root of that word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|root| root.as_str() == word)
    }
}

/// A set of roots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Roots(u8);

impl Roots {
    /// None.
    pub const NONE: Self = Self(0);

    /// Adds one.
    pub fn insert(&mut self, root: Root) {
        self.0 |= 1 << root as u8;
    }

    /// Whether it is in it.
    #[must_use]
    pub fn contains(self, root: Root) -> bool {
        self.0 & (1 << root as u8) != 0
    }

    /// Those that are in it.
    pub fn iter(self) -> impl Iterator<Item = Root> {
        Root::ALL.into_iter().filter(move |root| self.contains(*root))
    }

    /// Whether nothing is read that is only known once the run goes: at most `vars` and `inputs`.
    #[must_use]
    pub fn known_at_start(self) -> bool {
        self.iter().all(|root| matches!(root, Root::Vars | Root::Inputs))
    }
}

/// What an expression reads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct References {
    /// Tasks that are named, each once.
    pub tasks: Vec<Box<str>>,
    /// Those of them whose `status` is read.
    pub statuses: Vec<Box<str>>,
    /// Variables that are named, each once.
    pub vars: Vec<Box<str>>,
    /// Whether `item` or `index` is read.
    pub uses_item: bool,
    /// Every root that is read.
    pub roots: Roots,
    /// Whether `tasks` is used as a whole, or by a name that is computed.
    pub all_tasks: bool,
}

impl References {
    /// Nothing.
    pub const NONE: Self = Self {
        tasks: Vec::new(),
        statuses: Vec::new(),
        vars: Vec::new(),
        uses_item: false,
        roots: Roots::NONE,
        all_tasks: false,
    };

    pub(crate) fn add_task(&mut self, name: &str) {
        add(&mut self.tasks, name);
    }

    pub(crate) fn add_status(&mut self, name: &str) {
        add(&mut self.statuses, name);
    }

    pub(crate) fn add_var(&mut self, name: &str) {
        add(&mut self.vars, name);
    }

    pub(crate) fn add_root(&mut self, root: Root) {
        self.roots.insert(root);
        self.uses_item |= matches!(root, Root::Item | Root::Index);
    }

    /// Adds what another expression reads.
    pub(crate) fn add_all(&mut self, other: &Self) {
        other.tasks.iter().for_each(|name| self.add_task(name));
        other.statuses.iter().for_each(|name| self.add_status(name));
        other.vars.iter().for_each(|name| self.add_var(name));
        other.roots.iter().for_each(|root| self.add_root(root));
        self.all_tasks |= other.all_tasks;
    }
}

fn add(names: &mut Vec<Box<str>>, name: &str) {
    if !names.iter().any(|have| &**have == name) {
        names.push(name.into());
    }
}
