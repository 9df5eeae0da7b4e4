//! Vectors of words to search for, made here instead of by PostgreSQL's
//! `to_tsvector`, which took longer than anything else in a projection.
//!
//! What the stem of a word is only PostgreSQL knows, and it is asked about each
//! word once. Everything else about a vector is the place of each word, since
//! [`words`] leaves nothing but letters, digits and spaces. A test compares
//! the two.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Write};

use serde::{Serialize, Serializer};
use sqlx::PgConnection;
use tokio::sync::{RwLock, RwLockReadGuard};

pub use crate::text::words;

/// Most bytes of words that are remembered, about a third of what they take.
const REMEMBERED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The greatest place that a vector can hold: later words are all there.
const PLACE_MAX: usize = 16_383;
/// The most places of one stem that a vector holds.
const PLACES_MAX: usize = 255;

/// The words whose stems are known.
#[derive(Default)]
pub struct Lexicon {
    words: RwLock<Words>,
}

#[derive(Default)]
struct Words {
    /// The stems, each at the number by which it is known.
    stems: Vec<String>,
    numbers: HashMap<String, usize>,
    known: HashMap<String, Word>,
    bytes: usize,
}

/// What PostgreSQL makes of a word: mostly one stem in one place.
struct Word {
    stems: Vec<(usize, usize)>,
    places: usize,
}

/// Vectors that are made one by one, when they are written: PostgreSQL stores
/// one row while we make the next.
pub struct Vectors<'l> {
    words: RwLockReadGuard<'l, Words>,
    texts: Vec<String>,
}

/// A vector, as PostgreSQL reads it.
#[derive(Clone, Copy)]
pub struct Vector<'v> {
    words: &'v Words,
    text: &'v str,
}

impl Lexicon {
    /// The vectors of some texts. What belongs together may be in pieces.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn vectors<'a, T>(
        &self,
        conn: &mut PgConnection,
        texts: impl Iterator<Item = T>,
    ) -> sqlx::Result<Vectors<'_>>
    where
        T: IntoIterator<Item = &'a str>,
    {
        let texts: Vec<String> = texts.map(words).collect();
        let mut words = self.words.read().await;
        if !words.know(&texts) {
            drop(words);
            let mut learning = self.words.write().await;
            learning.learn(conn, &texts).await?;
            words = learning.downgrade();
        }
        Ok(Vectors { words, texts })
    }
}

impl Vectors<'_> {
    /// In the order of the texts.
    pub fn iter(&self) -> impl Iterator<Item = Vector<'_>> {
        let words = &*self.words;
        self.texts.iter().map(move |text| Vector { words, text })
    }
}

impl fmt::Display for Vector<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.words.vector(self.text))
    }
}

impl Serialize for Vector<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.words.vector(self.text))
    }
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !str::is_empty(word))
}

impl Words {
    fn know(&self, texts: &[String]) -> bool {
        let mut words = texts.iter().flat_map(|text| split(text));
        words.all(|word| self.known.contains_key(word))
    }

    /// Asks for the words that are not known yet, all at once.
    async fn learn(&mut self, conn: &mut PgConnection, texts: &[String]) -> sqlx::Result<()> {
        if self.bytes > REMEMBERED_BYTES_MAX {
            *self = Self::default();
        }
        let words = texts.iter().flat_map(|text| split(text));
        let new: BTreeSet<&str> = words
            .filter(|word| !self.known.contains_key(*word))
            .collect();
        let new: Vec<&str> = new.into_iter().collect();
        // The word at the end tells how many places the other took.
        let sql = "select asked.number, stem.lexeme, stem.positions
                   from unnest($1::text[]) with ordinality as asked (word, number),
                        unnest(to_tsvector('public.bitacora', asked.word || ' fin')) as stem";
        let rows: Vec<(i64, String, Vec<i16>)> =
            sqlx::query_as(sql).bind(&new).fetch_all(conn).await?;
        let mut answers: Vec<Vec<(String, usize)>> = vec![vec![]; new.len()];
        for (number, stem, places) in rows {
            let Some(answer) = usize::try_from(number - 1)
                .ok()
                .and_then(|n| answers.get_mut(n))
            else {
                continue;
            };
            let places = places
                .into_iter()
                .filter_map(|place| usize::try_from(place).ok());
            answer.extend(places.map(|place| (stem.clone(), place)));
        }
        for (word, answer) in new.into_iter().zip(answers) {
            self.remember(word, answer);
        }
        Ok(())
    }

    fn remember(&mut self, word: &str, answer: Vec<(String, usize)>) {
        let end = answer.iter().map(|(_, place)| *place).max().unwrap_or(1);
        let stems = answer.into_iter().filter(|(_, place)| *place < end);
        let stems: Vec<_> = stems
            .filter(|(stem, _)| stem.chars().all(char::is_alphanumeric))
            .map(|(stem, place)| (self.number(stem), place))
            .collect();
        self.bytes += word.len();
        let places = end - 1;
        self.known.insert(word.to_owned(), Word { stems, places });
    }

    fn number(&mut self, stem: String) -> usize {
        let next = self.stems.len();
        let number = *self.numbers.entry(stem.clone()).or_insert(next);
        if number == next {
            self.bytes += stem.len();
            self.stems.push(stem);
        }
        number
    }

    fn vector(&self, text: &str) -> String {
        let mut found = Vec::new();
        let mut before = 0;
        for word in split(text).filter_map(|word| self.known.get(word)) {
            let stems = word.stems.iter();
            found.extend(stems.map(|(stem, place)| (*stem, (before + place).min(PLACE_MAX))));
            before += word.places;
        }
        found.sort_unstable();
        found.dedup();
        let mut stems: Vec<_> = found
            .chunk_by(|(stem, _), (next, _)| stem == next)
            .collect();
        // As PostgreSQL orders them, so that it need not.
        stems.sort_unstable_by_key(|of_stem| &self.stems[of_stem[0].0]);
        let mut vector = String::with_capacity(text.len() * 2);
        for of_stem in stems {
            let mut before = "':";
            vector.push('\'');
            vector.push_str(&self.stems[of_stem[0].0]);
            for (_, place) in of_stem.iter().take(PLACES_MAX) {
                // Writing to a string cannot fail.
                let _ = write!(vector, "{before}{place}");
                before = ",";
            }
            vector.push(' ');
        }
        vector
    }
}
