//! What follows from the rows once all events are taken in: which of our
//! messages the provider's echoes mean, how far each has come, and how many
//! there are.

use std::collections::{BTreeMap, BTreeSet};

use super::callback::Echo;
use super::fold::Tables;
use super::progress::words_key;

/// A conversation, and the key of some words in it.
pub(super) type Words = (String, String);

impl Tables {
    /// The words of which the pairs of echoes and messages may have changed.
    pub(super) fn touched_words(&self) -> BTreeSet<Words> {
        let echoes = self.echoes.changed();
        let echoes = echoes.into_iter().map(echo_words);
        let messages = self.messages.changed().into_iter().flat_map(|row| {
            let before = self.messages.before(&row.id);
            // As it was, for it may be echoed no more.
            let was = before.and_then(|row| row.words_key.clone());
            let is = row.may_be_echoed().then(|| words_key(&row.content));
            let keys = was.into_iter().chain(is);
            keys.map(|key| (row.conversation_id.clone(), key))
        });
        echoes.chain(messages).collect()
    }

    /// Works out what follows. All rows with the touched words are loaded.
    pub(super) fn settle(&mut self) {
        self.pair();
        for row in self.messages.now.values_mut() {
            let callback = row.twilio_message_id.as_ref();
            row.settle(callback.and_then(|id| self.callbacks.now.get(id)));
        }
        self.count();
        for row in self.conversations.now.values_mut() {
            row.settle();
        }
    }

    /// Of the same words, the first echo means the first of our messages, and
    /// so on. An echo that is left over is a message that others sent.
    fn pair(&mut self) {
        let touched = self.touched_words();
        let mut ours: BTreeMap<Words, Vec<String>> = BTreeMap::new();
        for row in in_order(self.messages.now.values_mut(), |row| row.place()) {
            if row.may_be_echoed() {
                let words = (row.conversation_id.clone(), words_key(&row.content));
                ours.entry(words).or_default().push(row.id.clone());
            } else if let Some(told) = &mut row.told {
                told.echoed_at = None;
            }
        }
        let mut ours: BTreeMap<_, _> = ours
            .into_iter()
            .filter(|(words, _)| touched.contains(words))
            .map(|(words, ids)| (words, ids.into_iter()))
            .collect();
        let echoes = in_order(self.echoes.now.values_mut(), |echo| {
            (echo.occurred_at, echo.position)
        });
        for echo in echoes {
            let words = echo_words(echo);
            if !touched.contains(&words) {
                continue;
            }
            echo.confirms = ours.get_mut(&words).and_then(Iterator::next);
            let confirmed = echo.confirms.as_ref();
            let confirmed = confirmed.and_then(|id| self.messages.now.get_mut(id));
            match confirmed.and_then(|row| row.told.as_mut()) {
                Some(told) => {
                    told.echoed_at = Some(echo.occurred_at);
                    self.messages.now.remove(&echo.external_id());
                }
                None => {
                    let row = echo.external();
                    self.messages.now.insert(row.id.clone(), row);
                }
            }
        }
        for id in ours.into_values().flatten() {
            let row = self.messages.now.get_mut(&id);
            if let Some(told) = row.and_then(|row| row.told.as_mut()) {
                told.echoed_at = None;
            }
        }
    }

    /// Counts messages in that are new, and out that are gone.
    fn count(&mut self) {
        let mut news: BTreeMap<&str, i64> = BTreeMap::new();
        let changed = self.messages.changed();
        for row in changed {
            if self.messages.before(&row.id).is_none() {
                *news.entry(&row.conversation_id).or_default() += 1;
            }
        }
        for row in self.messages.gone() {
            *news.entry(&row.conversation_id).or_default() -= 1;
        }
        for (id, count) in news {
            if let Some(row) = self.conversations.now.get_mut(id) {
                row.message_count += count;
            }
        }
    }
}

fn echo_words(echo: &Echo) -> Words {
    (echo.conversation_id.clone(), echo.words_key.clone())
}

fn in_order<'a, T: 'a, K: Ord>(
    rows: impl Iterator<Item = &'a mut T>,
    place: impl Fn(&T) -> K,
) -> Vec<&'a mut T> {
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|row| place(row));
    rows
}
