//! builderbot.cloud: WhatsApp. It signs nothing and promises no ids, and it has
//! no public reference: what is known comes from those who integrate it.

pub mod client;
mod normalise;

pub(super) use normalise::normalise;

/// The token in the address, for those who cannot send a header: `?token=`.
/// Percent-decoded; a `+` is a plus, for people write the address by hand.
pub(super) fn token_in_query(path_and_query: &str) -> Option<String> {
    let (_, query) = path_and_query.split_once('?')?;
    let query = query.replace('+', "%2B");
    let mut params = form_urlencoded::parse(query.as_bytes());
    let (_, token) = params.find(|(name, _)| name == "token")?;
    Some(token.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_in_the_address_is_percent_decoded() {
        let token = |path: &str| token_in_query(path);
        assert_eq!(token("/w?token=a%2Fb%3D"), Some("a/b=".to_owned()));
        assert_eq!(token("/w?x=1&token=a+b%2B"), Some("a+b+".to_owned()));
        assert_eq!(token("/w?token="), Some(String::new()));
        assert_eq!(token("/w?xtoken=a"), None);
        assert_eq!(token("/w"), None);
    }
}
