//! What we write first when a call goes on by WhatsApp.

use domain::conversation::{Call, FirstMessage, MESSAGE_UNITS_MAX, Template};
use serde_json::{Map, Value};

const THANKS: &str = "Gracias por tu tiempo en la llamada.";
const GO_ON: &str =
    "Si quieres continuar o tienes alguna pregunta, respóndeme por aquí con toda confianza.";
/// What is before the summary of the call.
const WE_SAID: &str = "Esto es lo que conversamos: ";
/// What the replaced system calls a client whose name it does not know.
const NO_NAME: &str = "Cliente";
/// How a template greets such a client: it takes no empty name.
const NO_NAME_IN_TEMPLATE: &str = "cliente";

/// The first message, of which only the effect is not named yet: the template
/// where one is set, else words that greet by name and say what the call was
/// about, where that is known.
pub(super) fn compose(call: &Call, content_sid: Option<String>) -> FirstMessage {
    let name = call.client_name.as_deref();
    let template = content_sid.map(|content_sid| template(content_sid, name));
    // Nobody can be told a summary by a template that has no place for it.
    let summary = call.call_summary.as_deref().filter(|_| template.is_none());
    FirstMessage {
        effect_id: String::new(),
        content: words(name, summary),
        template,
    }
}

/// A template that greets a client by the first name.
pub fn template(content_sid: String, client_name: Option<&str>) -> Template {
    let name = client_name.and_then(first_name);
    let name = name.unwrap_or_else(|| NO_NAME_IN_TEMPLATE.to_owned());
    Template {
        content_sid,
        variables: Map::from_iter([("1".to_owned(), Value::String(name))]),
    }
}

fn words(client_name: Option<&str>, summary: Option<&str>) -> String {
    let greeting = match client_name.and_then(first_name) {
        Some(name) => format!("¡Hola {name}! {THANKS}"),
        None => format!("¡Hola! {THANKS}"),
    };
    let summary = summary.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let Some(summary) = summary.filter(|text| !text.is_empty()) else {
        return format!("{greeting}\n\n{GO_ON}");
    };
    let around = format!("{greeting}\n\n{WE_SAID}\n\n{GO_ON}");
    let units_left = MESSAGE_UNITS_MAX.saturating_sub(units(&around));
    let summary = shortened(&summary, units_left);
    format!("{greeting}\n\n{WE_SAID}{summary}\n\n{GO_ON}")
}

/// The first name as people write it, where there is one.
fn first_name(name: &str) -> Option<String> {
    /// Longer words are no names, and would leave no place for ours.
    const CHARS_MAX: usize = 40;
    let first = name.split_whitespace().next()?;
    let has_letters = first.chars().any(char::is_alphabetic);
    if !has_letters || first.chars().count() > CHARS_MAX || first.eq_ignore_ascii_case(NO_NAME) {
        return None;
    }
    let is_one_case = first == first.to_uppercase() || first == first.to_lowercase();
    let mut letters = first.chars();
    Some(match letters.next() {
        // `ANA` and `ana` are how tables are filled, not names.
        Some(initial) if is_one_case => {
            initial.to_uppercase().collect::<String>() + &letters.as_str().to_lowercase()
        }
        _ => first.to_owned(),
    })
}

/// A text of so many UTF-16 units at most, cut after a word.
fn shortened(text: &str, units_max: usize) -> String {
    const MORE: char = '…';
    if units(text) <= units_max {
        return text.to_owned();
    }
    let mut left = units_max.saturating_sub(MORE.len_utf16());
    let fitting = text.char_indices().find(|(_, c)| {
        let fits = c.len_utf16() <= left;
        left = left.saturating_sub(c.len_utf16());
        !fits
    });
    let head = fitting.map_or(text, |(at, _)| &text[..at]);
    let cut = head.rfind(' ').unwrap_or(head.len());
    format!("{}{MORE}", head[..cut].trim_end_matches([',', '.', ' ']))
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call(name: Option<&str>, summary: Option<&str>) -> Call {
        Call {
            client_name: name.map(str::to_owned),
            call_summary: summary.map(str::to_owned),
            ..Call::default()
        }
    }

    #[test]
    fn a_client_is_greeted_by_the_first_name() {
        let composed = compose(&call(Some("ANA maría garcía"), None), None);
        assert_eq!(
            composed.content,
            "¡Hola Ana! Gracias por tu tiempo en la llamada.\n\nSi quieres continuar o tienes \
             alguna pregunta, respóndeme por aquí con toda confianza."
        );
        assert_eq!(composed.template, None);
        for unknown in [None, Some(""), Some(" "), Some("Cliente"), Some("-")] {
            let content = compose(&call(unknown, None), None).content;
            assert!(content.starts_with("¡Hola! Gracias"), "{content}");
        }
        for (name, first) in [("josé", "José"), ("DeAndre Lee", "DeAndre"), ("Ñ", "Ñ")] {
            assert_eq!(first_name(name).as_deref(), Some(first));
        }
    }

    #[test]
    fn the_summary_of_the_call_is_told_where_it_is_known() {
        let summary = "  Ana pidió el precio\n del plan Premium. ";
        let content = compose(&call(Some("Ana"), Some(summary)), None).content;
        assert!(
            content.contains(
                "\n\nEsto es lo que conversamos: Ana pidió el precio del plan Premium.\n\n"
            ),
            "{content}"
        );
        let nothing = compose(&call(Some("Ana"), Some(" \n ")), None).content;
        assert!(!nothing.contains("conversamos"), "{nothing}");
    }

    #[test]
    fn a_template_takes_the_name_and_no_summary() {
        let composed = compose(&call(Some("Ana García"), Some("x")), Some("HX1".into()));
        let template = composed.template.unwrap();
        assert_eq!(template.content_sid, "HX1");
        assert_eq!(
            Value::Object(template.variables),
            serde_json::json!({"1": "Ana"})
        );
        assert!(!composed.content.contains("conversamos"));
        let nameless = super::template("HX1".into(), None);
        assert_eq!(nameless.variables["1"], "cliente");
    }

    proptest! {
        #[test]
        fn it_fits_one_message_whatever_was_said(
            name in "\\PC{0,60}", summary in "([a-zñ😀,.]{1,60} ){0,120}", endless in any::<bool>(),
        ) {
            let summary = if endless { summary.replace(' ', "") } else { summary };
            let content = compose(&call(Some(&name), Some(&summary)), None).content;
            prop_assert!(units(&content) <= MESSAGE_UNITS_MAX);
            prop_assert!(content.ends_with(GO_ON));
        }
    }
}
