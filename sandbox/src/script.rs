//! What people and agents say, in Spanish, from the seed.
//!
//! Every answer of a text session quotes what it answers, so that a test can pair the two.

use serde_json::Value;

use crate::{CallOutcome, fate::Draw};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) by_agent: bool,
    pub(crate) text: String,
    /// Since the conversation began.
    pub(crate) at_secs: u64,
}

/// A whole call, and what the provider makes of it.
pub(crate) struct Dialogue {
    pub(crate) turns: Vec<Turn>,
    /// `success`, `failure` or `unknown`.
    pub(crate) successful: &'static str,
    pub(crate) title: &'static str,
    pub(crate) summary: String,
    pub(crate) interest: &'static str,
}

/// Names under which the services give a client's name.
const NAME_VARIABLES: [&str; 5] = [
    "client_name",
    "name",
    "nombre",
    "customer_name",
    "user_name",
];

/// Names under which the services give the summary of an earlier call.
const SUMMARY_VARIABLES: [&str; 4] = ["call_summary", "summary", "resumen", "conversation_summary"];

/// How much of a question an answer quotes, in characters.
const QUOTE_CHARS: usize = 80;

/// The first of the variables that is there, as text.
fn variable<'a>(variables: &'a Value, names: &[&str]) -> Option<&'a str> {
    let text = |name: &&str| variables[*name].as_str().filter(|t| !t.is_empty());
    names.iter().find_map(text)
}

fn first_name(variables: &Value) -> &str {
    let name = variable(variables, &NAME_VARIABLES).unwrap_or("cliente");
    name.split_whitespace().next().unwrap_or("cliente")
}

/// What is said in a call.
pub(crate) fn call(
    mut draw: Draw,
    outcome: CallOutcome,
    talk_secs: u64,
    variables: &Value,
) -> Dialogue {
    let name = first_name(variables);
    match outcome {
        CallOutcome::Answered => answered(&mut draw, name, talk_secs),
        CallOutcome::Voicemail => Dialogue {
            turns: spread(
                vec![(
                    true,
                    format!("Hola {name}, le dejo este mensaje: por favor devuélvanos la llamada."),
                )],
                talk_secs,
            ),
            successful: "failure",
            title: "Buzón de voz",
            summary: format!("Contestó el buzón de voz de {name}; se dejó un mensaje."),
            interest: "desconocido",
        },
        _ => Dialogue {
            turns: Vec::new(),
            successful: "unknown",
            title: "Sin contestar",
            summary: "La llamada no fue contestada.".to_owned(),
            interest: "desconocido",
        },
    }
}

fn answered(draw: &mut Draw, name: &str, talk_secs: u64) -> Dialogue {
    let greeting = format!("Hola, ¿hablo con {name}?");
    let offer = "Le llamo para contarle de un acuerdo de pago con descuento. ¿Le interesa?";
    let yes = draw.pick(&[
        "Sí, con él.",
        "Sí, dígame.",
        "Sí, ¿quién habla?",
        "Aló, sí.",
    ]);
    let mut said = vec![
        (true, greeting),
        (false, yes.unwrap_or_default().to_owned()),
        (true, offer.to_owned()),
    ];
    let mut say = |by_agent: bool, text: &str| said.push((by_agent, text.to_owned()));
    let (successful, title, summary, interest) = match draw.within(0..=2) {
        0 => {
            say(false, "Sí me interesa, ¿cuál es el precio?");
            say(
                true,
                "Son 120.000 pesos al mes. Le envío los detalles por WhatsApp.",
            );
            say(false, "Perfecto, quedo pendiente. Gracias.");
            say(true, "A usted. Que tenga un buen día.");
            (
                "success",
                "Cliente interesado",
                format!("{name} se interesa y pide los detalles por WhatsApp."),
                "alto",
            )
        }
        1 => {
            say(false, "Ahora no puedo, ¿me llama más tarde?");
            say(true, "Con gusto, ¿le parece bien mañana a las diez?");
            say(false, "Sí, mañana a las diez.");
            say(true, "Agendado. Hasta mañana.");
            (
                "success",
                "Volver a llamar",
                format!("{name} pide que se le llame mañana a las diez."),
                "medio",
            )
        }
        _ => {
            say(false, "No, gracias, no me interesa.");
            say(true, "Entiendo. Gracias por su tiempo.");
            (
                "failure",
                "Sin interés",
                format!("{name} no está interesado en el acuerdo."),
                "bajo",
            )
        }
    };
    Dialogue {
        turns: spread(said, talk_secs),
        successful,
        title,
        summary,
        interest,
    }
}

/// Spreads turns over the length of a call.
fn spread(said: Vec<(bool, String)>, talk_secs: u64) -> Vec<Turn> {
    let count = said.len().max(1) as u64;
    let turn = |(nth, (by_agent, text)): (usize, (bool, String))| Turn {
        by_agent,
        text,
        at_secs: nth as u64 * talk_secs / count,
    };
    said.into_iter().enumerate().map(turn).collect()
}

/// Fills `{{variables}}` in; returns the first that is missing.
pub(crate) fn render(template: &str, variables: &Value) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        out.push_str(before);
        match &variables[name.trim()] {
            Value::Null => return Err(name.trim().to_owned()),
            Value::String(text) => out.push_str(text),
            other => out.push_str(&other.to_string()),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// What the agent of a text session answers.
pub(crate) fn agent_reply(said: &str, variables: &Value, context: &[String]) -> String {
    let name = first_name(variables);
    let heard = said.to_lowercase();
    let hears = |words: &[&str]| words.iter().any(|word| heard.contains(word));
    let answer = if hears(&["precio", "cuánto", "cuanto", "cuesta", "valor"]) {
        "el plan Esencial cuesta 120.000 pesos al mes, sin permanencia.".to_owned()
    } else if hears(&["condiciones", "detalle"]) {
        conditions()
    } else if hears(&["asesor", "humano", "persona real"]) {
        format!("claro, {name}: le pido a una persona del equipo que le escriba.")
    } else if hears(&["llamada", "resumen", "hablamos"]) {
        recollection(variables, context)
    } else if hears(&["gracias", "listo", "chao", "adiós"]) {
        format!("con mucho gusto, {name}. Aquí estamos para lo que necesite.")
    } else if hears(&["hola", "buenas", "buenos días"]) {
        format!("hola, {name}, ¿en qué puedo ayudarle?")
    } else {
        "tomo nota. ¿Quiere que le cuente el precio o las condiciones?".to_owned()
    };
    format!("Sobre «{}»: {answer}", quote(said))
}

fn quote(said: &str) -> String {
    said.trim().chars().take(QUOTE_CHARS).collect()
}

/// What the agent remembers of the call: the variables, else the last thing it was told.
fn recollection(variables: &Value, context: &[String]) -> String {
    let known = variable(variables, &SUMMARY_VARIABLES).or(context.last().map(String::as_str));
    match known {
        Some(summary) => format!("en la llamada quedamos en esto: {summary}"),
        None => "no tengo el resumen de la llamada a la mano.".to_owned(),
    }
}

/// An answer longer than Twilio's 1,600 characters.
fn conditions() -> String {
    const CLAUSE: &str = "el servicio se factura por mes vencido, puede cancelarse en cualquier \
        momento desde la aplicación y no tiene cláusula de permanencia; ";
    const CLAUSES: usize = 16;
    let clauses: String = (1..=CLAUSES).map(|n| format!("{n}. {CLAUSE}")).collect();
    format!("estas son las condiciones completas: {clauses}eso es todo.")
}

/// A later, better wording of an answer.
pub(crate) fn corrected(answer: &str) -> String {
    format!("{answer} (corregido)")
}

/// What a person writes to us, the `nth` time.
pub(crate) fn person(mut draw: Draw, nth: u32) -> String {
    const FIRST: [&str; 4] = [
        "Hola, sí, hablé con ustedes.",
        "Sí me interesa, ¿cuál es el precio?",
        "Buenas, ¿de qué se trata?",
        "Hola. ¿Qué quedó de la llamada?",
    ];
    const LATER: [&str; 6] = [
        "¿Y cuánto cuesta al mes?",
        "¿Me puede enviar las condiciones?",
        "¿Puedo hablar con un asesor?",
        "Listo, gracias 🙌",
        "¿Hay que firmar algo?",
        "¿Atienden los sábados?",
    ];
    let lines: &[&str] = if nth == 0 { &FIRST } else { &LATER };
    draw.pick(lines).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fate::Fate;

    #[test]
    fn a_template_is_filled_in_or_names_what_it_lacks() {
        let variables = json!({"name": "Ana", "n": 3});
        assert_eq!(
            render("Hola {{name}} {{ n }}.", &variables),
            Ok("Hola Ana 3.".into())
        );
        assert_eq!(render("Hola {{who}}", &variables), Err("who".into()));
        assert_eq!(render("Hola {{", &variables), Ok("Hola {{".into()));
    }

    #[test]
    fn the_agent_quotes_remembers_and_can_be_long_winded() {
        let variables = json!({"client_name": "Ana García", "call_summary": "paga el viernes"});
        let reply = |said: &str| agent_reply(said, &variables, &[]);
        assert!(reply("¿Cuál es el precio?").starts_with("Sobre «¿Cuál es el precio?»: "));
        assert!(reply("¿Qué pasó en la llamada?").ends_with("paga el viernes"));
        assert!(reply("Hola").contains("hola, Ana,"));
        assert!(reply("¿condiciones?").chars().count() > 1_600);
        let told = agent_reply("resumen", &json!({}), &["habló ayer".into()]);
        assert!(told.ends_with("habló ayer"));
    }

    #[test]
    fn a_call_is_told_the_same_way_twice() {
        let told = |seed| {
            let draw = Fate::new(seed).draw("script", "call");
            call(draw, CallOutcome::Answered, 60, &json!({"nombre": "Luz"})).turns
        };
        assert_eq!(told(1), told(1));
        assert!(told(1).iter().all(|turn| turn.at_secs < 60));
        assert_eq!(told(1)[0].text, "Hola, ¿hablo con Luz?");
    }
}
