//! Where in a document the reader is, without writing pointers that nobody needs.

use crate::rendering::push_key;

/// A place in a document: a key and the place it is in.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    key: Key<'a>,
}

#[derive(Clone, Copy)]
enum Key<'a> {
    Root,
    Name(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    /// The whole document.
    pub(super) const ROOT: At<'static> = At { parent: None, key: Key::Root };

    /// The value of a key in it.
    pub(super) fn key(&'a self, name: &'a str) -> At<'a> {
        At { parent: Some(self), key: Key::Name(name) }
    }

    /// An item of it.
    pub(super) fn index(&'a self, index: usize) -> At<'a> {
        At { parent: Some(self), key: Key::Index(index) }
    }

    /// Its JSON pointer.
    pub(super) fn pointer(&self) -> String {
        let mut pointer = match self.parent {
            Some(parent) => parent.pointer(),
            None => String::new(),
        };
        match self.key {
            Key::Root => {}
            Key::Name(name) => push_key(&mut pointer, name),
            Key::Index(index) => push_key(&mut pointer, &index.to_string()),
        }
        pointer
    }
}
