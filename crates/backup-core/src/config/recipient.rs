//! Which texts are age recipients: the one place that decides, for the configuration and for the seal alike.

use std::str::FromStr;

/// A recipient that generation keys can be wrapped to.
pub type Recipient = Box<dyn age::Recipient + Send + Sync>;

/// Parses `text` as an age recipient: X25519 (`age1…`) or a hardware-held P-256 one (`age1tag1…`). `None` otherwise.
///
/// Post-quantum recipients are not accepted: age refuses to mix them with the others in one header, and a restore
/// with the stock tools of today could not open them.
pub fn parse_recipient(text: &str) -> Option<Recipient> {
    if let Ok(recipient) = age::x25519::Recipient::from_str(text) {
        return Some(Box::new(recipient));
    }
    age::tag::Recipient::from_str(text).ok().map(|recipient| Box::new(recipient) as Recipient)
}

/// Refuses a text that is no recipient: why, and what to do. Neither repeats the text, which may be a secret.
pub fn check_recipient(text: &str) -> Result<(), (&'static str, &'static str)> {
    parse_recipient(text).map(drop).ok_or_else(|| explain(text))
}

/// Why a text that is no recipient was probably written, and what to do; never the text itself, which may be a secret.
pub(super) fn explain(text: &str) -> (&'static str, &'static str) {
    let upper = text.to_ascii_uppercase();
    if upper.starts_with("AGE-SECRET-KEY-") || upper.starts_with("AGE-PLUGIN-") {
        return (
            "is a secret identity, not a recipient",
            "take it out of the file, treat it as exposed, and use the `age1…` text that belongs to a new one",
        );
    }
    if upper.starts_with("SSH-") {
        return ("is an SSH key, not an age recipient", "make an age identity with `backup key new operator.txt`");
    }
    if upper.starts_with("AGE1PQ1") || upper.starts_with("AGE1TAGPQ1") {
        return ("is a post-quantum recipient, which cannot stand beside others", "use an `age1…` X25519 recipient");
    }
    ("is not an age recipient", "use the `age1…` line that `backup key new operator.txt` or `age-keygen` prints")
}
