//! The closed vocabularies that events, read models and the API share.

/// Defines an enum whose members have one fixed name, on the wire and in SQL.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident { $($(#[$mdoc:meta])* $member:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$mdoc])* #[serde(rename = $text)] $member),+ }

        impl $name {
            /// Every member, in the order of their definition.
            pub const ALL: &[Self] = &[$(Self::$member),+];

            /// The name as it is stored and served.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$member => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$member),)+
                    _ => Err(format!("must be one of: {}", [$($text),+].join(", "))),
                }
            }
        }
    };
}
pub(crate) use vocabulary;

vocabulary! {
    /// How a person was reached.
    Channel {
        /// A voice call, by telephone or in a browser.
        Call = "call",
        /// A WhatsApp conversation.
        Whatsapp = "whatsapp",
        /// A text message.
        Sms = "sms",
    }
}

vocabulary! {
    /// Who began, seen from the contact centre.
    Direction {
        /// The client reached us.
        Inbound = "inbound",
        /// We reached the client.
        Outbound = "outbound",
    }
}

vocabulary! {
    /// Whose webhook or API a fact came through.
    Provider {
        /// ElevenLabs: voice agents.
        Elevenlabs = "elevenlabs",
        /// Twilio: WhatsApp, SMS and telephone legs.
        Twilio = "twilio",
        /// builderbot.cloud: WhatsApp.
        Builderbot = "builderbot",
    }
}
