//! Live tasks by number, in pages.
//!
//! Numbers are given out in sequence, so that pages fill densely; a hash table of tasks would take
//! twice the memory at an unlucky size. A page is freed when its last task settles. The worst case
//! is one straggler per page: 32 times its size.

use rustc_hash::FxHashMap;

use super::classes::ClassIndex;
use super::specs::SpecIndex;
use crate::ids::TaskId;
use crate::task::Task;

const PAGE: u64 = 32;

/// A live task with what the kernel knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) task: Task,
    pub(crate) spec: SpecIndex,
    pub(crate) class: ClassIndex,
    /// Whether it is ready and waits for locks outside of its class's queue.
    pub(crate) parked: bool,
}

const _: () = assert!(size_of::<Option<Entry>>() <= 104);

#[derive(Debug, Default)]
struct Page {
    used: u32,
    entries: Box<[Option<Entry>]>,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct TaskTable {
    pages: FxHashMap<u64, Page>,
    len: usize,
}

impl TaskTable {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<&Entry> {
        self.pages.get(&(id.0 / PAGE))?.entries[(id.0 % PAGE) as usize].as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: TaskId) -> Option<&mut Entry> {
        self.pages.get_mut(&(id.0 / PAGE))?.entries[(id.0 % PAGE) as usize].as_mut()
    }

    /// Puts a task in; there must be none of that number.
    pub(crate) fn insert(&mut self, id: TaskId, entry: Entry) {
        let page = self
            .pages
            .entry(id.0 / PAGE)
            .or_insert_with(|| Page { used: 0, entries: (0..PAGE).map(|_| None).collect() });
        let slot = &mut page.entries[(id.0 % PAGE) as usize];
        debug_assert!(slot.is_none(), "task {id} is there already");
        if slot.replace(entry).is_none() {
            page.used += 1;
            self.len += 1;
        }
    }

    /// Takes a task out.
    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Entry> {
        let page = self.pages.get_mut(&(id.0 / PAGE))?;
        let entry = page.entries[(id.0 % PAGE) as usize].take()?;
        page.used -= 1;
        self.len -= 1;
        if page.used == 0 {
            self.pages.remove(&(id.0 / PAGE));
        }
        Some(entry)
    }

    /// All of them, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TaskId, &Entry)> {
        let mut pages: Vec<_> = self.pages.iter().collect();
        pages.sort_unstable_by_key(|(number, _)| **number);
        pages.into_iter().flat_map(|(number, page)| {
            page.entries
                .iter()
                .enumerate()
                .filter_map(move |(i, entry)| Some((TaskId(number * PAGE + i as u64), entry.as_ref()?)))
        })
    }
}
