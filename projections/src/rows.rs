//! Rows of one table, in memory: as they were, and as they are.

use std::collections::BTreeMap;

/// Rows of one table by their key: those that some events touch.
#[derive(Debug)]
pub(crate) struct Rows<K, R> {
    before: BTreeMap<K, R>,
    pub(crate) now: BTreeMap<K, R>,
}

impl<K, R> Default for Rows<K, R> {
    fn default() -> Self {
        Self {
            before: BTreeMap::new(),
            now: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone, R: PartialEq + Clone> Rows<K, R> {
    /// Takes in rows as they are in the table. One that is here already stays:
    /// it may have been changed since.
    pub(crate) fn load(&mut self, rows: Vec<R>, key: impl Fn(&R) -> K) {
        for row in rows {
            let key = key(&row);
            if !self.before.contains_key(&key) {
                self.before.insert(key.clone(), row.clone());
                self.now.insert(key, row);
            }
        }
    }

    /// The row as it was, if it was there.
    pub(crate) fn before(&self, key: &K) -> Option<&R> {
        self.before.get(key)
    }

    /// Every key that is or was.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        let gone = self.before.keys().filter(|key| !self.now.contains_key(key));
        self.now.keys().chain(gone)
    }

    /// What is to be written.
    pub(crate) fn changed(&self) -> Vec<&R> {
        let rows = self.now.iter();
        let changed = rows.filter(|(key, row)| self.before.get(key) != Some(row));
        changed.map(|(_, row)| row).collect()
    }

    /// What is to be written: what is new, and what is there in another shape.
    pub(crate) fn new_and_changed(&self) -> (Vec<&R>, Vec<&R>) {
        let rows = self.now.iter();
        let changed = rows.filter(|(key, row)| self.before.get(key) != Some(row));
        let (there, new): (Vec<_>, Vec<_>) =
            changed.partition(|(key, _)| self.before.contains_key(*key));
        let row = |(_, row)| row;
        (
            new.into_iter().map(row).collect(),
            there.into_iter().map(row).collect(),
        )
    }

    /// What is to be taken away.
    pub(crate) fn gone(&self) -> Vec<&R> {
        let rows = self.before.iter();
        let gone = rows.filter(|(key, _)| !self.now.contains_key(key));
        gone.map(|(_, row)| row).collect()
    }

    /// Where there is no table: the rows are taken for written.
    pub(crate) fn written(&mut self) {
        self.before = self.now.clone();
    }
}
