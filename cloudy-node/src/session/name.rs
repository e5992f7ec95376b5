//! The name of a session, which keeps the sessions of several teams with one cluster key apart.

use std::fmt;
use std::str::FromStr;

use super::GROUP_NAME;

/// Maximum length of a session's name in bytes.
pub const SESSION_NAME_BYTES_MAX: usize = 64;

/// The name of a session without a given one.
const DEFAULT: &str = "default";

/// A session's name: letters, digits, `-`, `_` and `.` of ASCII, at most [`SESSION_NAME_BYTES_MAX`] of them.
///
/// A master counts only slaves of its own session. [`SessionName::default`] is `default`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionName(String);

/// The text is not a valid name of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a session's name has up to {SESSION_NAME_BYTES_MAX} letters, digits, `-`, `_` and `.` of ASCII; write for example \
     team-a"
)]
#[non_exhaustive]
pub struct SessionNameError;

impl SessionName {
    /// The name as a text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the session's group: [`GROUP_NAME`] for the default name, and `session/NAME` for others.
    #[must_use]
    pub fn group_name(&self) -> String {
        if self.0 == DEFAULT { GROUP_NAME.to_owned() } else { format!("{GROUP_NAME}/{}", self.0) }
    }

    /// The session whose group has that name; none if the group is not a session's.
    #[must_use]
    pub fn of_group(name: &str) -> Option<Self> {
        let session = match name.strip_prefix(GROUP_NAME)? {
            "" => Self::default(),
            rest => rest.strip_prefix('/')?.parse().ok()?,
        };
        (session.group_name() == name).then_some(session)
    }
}

impl Default for SessionName {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl FromStr for SessionName {
    type Err = SessionNameError;

    /// An empty text is the default name, like an empty environment variable.
    fn from_str(text: &str) -> Result<Self, SessionNameError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if text.len() > SESSION_NAME_BYTES_MAX || !text.bytes().all(allowed) {
            return Err(SessionNameError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_groups_belong_together() {
        for (text, group) in
            [("", "session"), ("default", "session"), ("team-a", "session/team-a"), ("x.1_Y", "session/x.1_Y")]
        {
            let name: SessionName = text.parse().expect("a name");
            assert_eq!(name.group_name(), group);
            assert_eq!(SessionName::of_group(group), Some(name));
        }
        for group in ["", "orders", "sessions", "session/", "session/default", "session/a b", "Session"] {
            assert_eq!(SessionName::of_group(group), None, "{group}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["a b", "a/b", "ä", "a\n", &"a".repeat(SESSION_NAME_BYTES_MAX + 1)] {
            assert_eq!(text.parse::<SessionName>(), Err(SessionNameError), "{text}");
        }
        assert!("a".repeat(SESSION_NAME_BYTES_MAX).parse::<SessionName>().is_ok());
    }
}
