//! A rule that did not hold.

use std::fmt;

/// Which rule was broken, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Short name of the rule, such as `H2 payload uniqueness`.
    pub rule: &'static str,
    /// What was seen.
    pub story: String,
}

impl Broken {
    /// A step that the specification does not know.
    pub fn no_action(story: String) -> Broken {
        Broken {
            rule: "a step is an action of the specification",
            story,
        }
    }

    /// `Ok` where the rule holds; the story is told only where it does not.
    pub fn unless(
        holds: bool,
        rule: &'static str,
        story: impl FnOnce() -> String,
    ) -> Result<(), Broken> {
        if holds {
            Ok(())
        } else {
            Err(Broken {
                rule,
                story: story(),
            })
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.story)
    }
}
