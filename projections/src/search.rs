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
const PLACE_MAX: u16 = 16_383;
/// The most places of one stem that a vector holds.
const PLACES_MAX: usize = 255;

/// The words whose stems are known.
#[derive(Default)]
pub struct Lexicon {
    words: RwLock<Words>,
}

#[derive(Default)]
struct Words {
    /// The words and the stems, each at the number by which it is known.
    words: Vec<Word>,
    stems: Vec<Stem>,
    word_numbers: HashMap<String, usize>,
    stem_numbers: HashMap<String, usize>,
    bytes: usize,
}

/// The order of stems is PostgreSQL's, that of their bytes: the first eight as a
/// number, for it is decided there as a rule.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Stem {
    first: u64,
    text: String,
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
    /// Of each text the numbers of its words.
    texts: Vec<Vec<usize>>,
}

/// A vector, as PostgreSQL reads it: as text, or in its binary form.
#[derive(Clone, Copy)]
pub struct Vector<'v> {
    words: &'v Words,
    text: &'v [usize],
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
        loop {
            let words = self.words.read().await;
            if let Some(texts) = words.numbers(&texts) {
                return Ok(Vectors { words, texts });
            }
            drop(words);
            self.words.write().await.learn(conn, &texts).await?;
        }
    }
}

impl Vectors<'_> {
    /// In the order of the texts.
    pub fn iter(&self) -> impl Iterator<Item = Vector<'_>> {
        let words = &*self.words;
        self.texts.iter().map(move |text| Vector { words, text })
    }
}

impl<'v> Vector<'v> {
    /// Gives each of its stems with its places, in order. How many there are.
    fn stems(&self, mut take: impl FnMut(&'v str, &[(usize, u16)])) -> usize {
        let mut found = Vec::with_capacity(self.text.len());
        let mut before = 0;
        for number in self.text {
            let word = &self.words.words[*number];
            let place =
                |place| u16::try_from(before + place).map_or(PLACE_MAX, |at| at.min(PLACE_MAX));
            found.extend(word.stems.iter().map(|(stem, at)| (*stem, place(at))));
            before += word.places;
        }
        found.sort_unstable();
        found.dedup();
        let stems = found.chunk_by(|(stem, _), (next, _)| stem == next);
        let mut stems: Vec<_> = stems
            .map(|places| (&self.words.stems[places[0].0], places))
            .collect();
        stems.sort_unstable_by_key(|(stem, _)| *stem);
        for (stem, places) in &stems {
            take(&stem.text, &places[..places.len().min(PLACES_MAX)]);
        }
        stems.len()
    }

    /// As `tsvectorrecv` of PostgreSQL reads it.
    fn binary(&self) -> Vec<u8> {
        let mut out = vec![0; 4];
        let count = self.stems(|stem, places| {
            out.extend_from_slice(stem.as_bytes());
            out.push(0);
            out.extend_from_slice(&(places.len() as u16).to_be_bytes());
            for (_, place) in places {
                out.extend_from_slice(&place.to_be_bytes());
            }
        });
        out[..4].copy_from_slice(&(count as u32).to_be_bytes());
        out
    }
}

impl fmt::Display for Vector<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(16 * self.text.len());
        self.stems(|stem, places| {
            let mut before = "':";
            text.push('\'');
            text.push_str(stem);
            for (_, place) in places {
                // Writing to a string cannot fail.
                let _ = write!(text, "{before}{place}");
                before = ",";
            }
            text.push(' ');
        });
        formatter.write_str(&text)
    }
}

impl Serialize for Vector<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(self),
            false => serializer.serialize_bytes(&self.binary()),
        }
    }
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !str::is_empty(word))
}

impl Words {
    /// Of each text the numbers of its words, if all are known.
    fn numbers(&self, texts: &[String]) -> Option<Vec<Vec<usize>>> {
        let number = |word| self.word_numbers.get(word).copied();
        let texts = texts.iter();
        texts
            .map(|text| split(text).map(number).collect())
            .collect()
    }

    /// Asks for the words that are not known yet, all at once.
    async fn learn(&mut self, conn: &mut PgConnection, texts: &[String]) -> sqlx::Result<()> {
        if self.bytes > REMEMBERED_BYTES_MAX {
            *self = Self::default();
        }
        let words = texts.iter().flat_map(|text| split(text));
        let new: BTreeSet<&str> = words
            .filter(|word| !self.word_numbers.contains_key(*word))
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
        self.word_numbers.insert(word.to_owned(), self.words.len());
        self.words.push(Word { stems, places });
    }

    fn number(&mut self, stem: String) -> usize {
        let next = self.stems.len();
        let number = *self.stem_numbers.entry(stem.clone()).or_insert(next);
        if number == next {
            self.bytes += stem.len();
            self.stems.push(Stem::of(stem));
        }
        number
    }
}

impl Stem {
    fn of(text: String) -> Self {
        let mut first = [0; 8];
        for (to, from) in first.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Self {
            first: u64::from_be_bytes(first),
            text,
        }
    }
}
