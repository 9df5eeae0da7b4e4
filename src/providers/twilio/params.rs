//! The parameters of a webhook: a form, or a flat JSON object of the same.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::providers::lenient::{self, Scalar};
use crate::providers::text;

/// Names and values in the order in which they came.
pub(super) struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Reads a body: JSON where its type says so, or where no type says
    /// otherwise and it begins like an object; else a form.
    ///
    /// # Errors
    /// That it should be JSON and is not. A form can always be read.
    pub(super) fn read(body: &'a [u8], content_type: Option<&str>) -> Result<Self, String> {
        let named = content_type.unwrap_or_default().to_ascii_lowercase();
        let looks_like_json = body.trim_ascii_start().starts_with(b"{");
        let is_form = named.contains("x-www-form-urlencoded");
        if named.contains("json") || (looks_like_json && !is_form) {
            let object: Map<String, Value> = lenient::object(body)?;
            return Ok(Self(object.into_iter().filter_map(of_json).collect()));
        }
        Ok(Self(form_urlencoded::parse(body).collect()))
    }

    /// A parameter's value as it came, unless it is empty.
    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(it, _)| it == name)?;
        (!value.is_empty()).then_some(value)
    }

    /// The same without the space around it: for ids and words.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.raw(name).map(str::trim).filter(|it| !it.is_empty())
    }

    /// A parameter's words, fit for PostgreSQL.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.raw(name).map(text::clean)
    }

    /// A parameter's whole number.
    pub(super) fn whole(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    /// Whether a parameter says `true`.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|it| it.eq_ignore_ascii_case("true"))
    }
}

fn of_json((name, value): (String, Value)) -> Option<(Cow<'static, str>, Cow<'static, str>)> {
    let value = Scalar::from(&value).into_text()?;
    Some((Cow::Owned(name), Cow::Owned(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_form_say_the_same() {
        let form = Params::read(b"A=x+y&B=2&C=%C3%B1", None).unwrap();
        let json = Params::read(
            "{\"A\":\"x y\",\"B\":2,\"C\":\"ñ\",\"D\":null}".as_bytes(),
            None,
        );
        let json = json.unwrap();
        for name in ["A", "B", "C", "D"] {
            assert_eq!(form.raw(name), json.raw(name), "{name}");
        }
    }

    #[test]
    fn the_content_type_decides_before_the_looks() {
        let form = "application/x-www-form-urlencoded; charset=UTF-8";
        assert_eq!(
            Params::read(b"{=1", Some(form)).unwrap().raw("{"),
            Some("1")
        );
        assert!(Params::read(b"A=1", Some("application/json")).is_err());
        assert!(Params::read(b"[1]", Some("application/json")).is_err());
    }

    #[test]
    fn the_first_of_several_counts_and_an_empty_one_is_none() {
        let params = Params::read(b"A=1&A=2&B=&C=%20&D", None).unwrap();
        assert_eq!(params.raw("A"), Some("1"));
        assert_eq!(params.raw("B"), None);
        assert_eq!((params.raw("C"), params.get("C")), (Some(" "), None));
        assert_eq!(params.raw("D"), None);
    }
}
