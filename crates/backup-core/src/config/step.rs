//! Steps that follow a run, as `then` names them: a closed set, so that a word that nobody acts on is refused when the
//! file is read and not after the night's capture.

use std::fmt;
use std::str::FromStr;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Every configured vault gets what it lacks, also those outside of the job's `vaults`.
    Replicate,
    /// Expired generations are announced and deleted.
    Prune,
    /// What the vaults hold is checked.
    Verify {
        /// The share of the objects that is read and hashed; absent: none.
        read_data: Option<Share>,
        /// Everything is decrypted, with the identity of `keys.identity`.
        full: bool,
    },
}

/// A share of the data, written `1/30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which part, from 1.
    pub part: u32,
    /// How many parts there are.
    pub parts: u32,
}

/// Why a text is no [`Step`] or no [`Share`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Not one of the verbs.
    #[error("`{0}` is not one of replicate, prune, verify")]
    Verb(String),
    /// A verb that takes no arguments has one.
    #[error("`{verb}` takes no `{argument}` here")]
    Argument {
        /// The verb.
        verb: &'static str,
        /// Its first argument that is too much.
        argument: String,
    },
    /// An argument of `verify` is there twice.
    #[error("`{0}` is there twice")]
    Twice(&'static str),
    /// Not a share.
    #[error("`{0}` is not a share like 1/30")]
    Share(String),
}

const READ_DATA: &str = "--read-data";
const FULL: &str = "--full";

impl FromStr for Step {
    type Err = StepError;

    /// Reads a verb with its arguments, parted at blanks.
    fn from_str(text: &str) -> Result<Self, StepError> {
        let mut words = text.split_whitespace();
        let step = match words.next().unwrap_or_default() {
            "replicate" => Self::Replicate,
            "prune" => Self::Prune,
            "verify" => return verify(words),
            other => return Err(StepError::Verb(other.to_owned())),
        };
        match words.next() {
            None => Ok(step),
            Some(argument) => Err(StepError::Argument { verb: step.verb(), argument: argument.to_owned() }),
        }
    }
}

fn verify<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Step, StepError> {
    let (mut read_data, mut full) = (None, false);
    while let Some(word) = words.next() {
        let share = match word.split_once('=') {
            Some((READ_DATA, share)) => share,
            None if word == READ_DATA => words.next().unwrap_or_default(),
            None if word == FULL && full => return Err(StepError::Twice(FULL)),
            None if word == FULL => {
                full = true;
                continue;
            }
            _ => return Err(StepError::Argument { verb: "verify", argument: word.to_owned() }),
        };
        if read_data.replace(share.parse()?).is_some() {
            return Err(StepError::Twice(READ_DATA));
        }
    }
    Ok(Step::Verify { read_data, full })
}

impl Step {
    /// The verb.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Replicate => "replicate",
            Self::Prune => "prune",
            Self::Verify { .. } => "verify",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb())?;
        if let Self::Verify { read_data, full } = self {
            if let Some(share) = read_data {
                write!(f, " {READ_DATA} {share}")?;
            }
            if *full {
                write!(f, " {FULL}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Share {
    type Err = StepError;

    fn from_str(text: &str) -> Result<Self, StepError> {
        let number = |text: &str| text.parse::<u32>().ok();
        text.split_once('/')
            .and_then(|(part, parts)| Some(Self { part: number(part)?, parts: number(parts)? }))
            .filter(|share| (1..=share.parts).contains(&share.part))
            .ok_or_else(|| StepError::Share(text.to_owned()))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_writes() {
        for text in [
            "replicate",
            "prune",
            "verify",
            "verify --full",
            "verify --read-data 1/30",
            "verify --read-data 2/3 --full",
        ] {
            assert_eq!(text.parse::<Step>().map(|step| step.to_string()), Ok(text.to_owned()));
        }
        let share = Some(Share { part: 1, parts: 7 });
        assert_eq!("verify  --read-data=1/7".parse(), Ok(Step::Verify { read_data: share, full: false }));
    }

    #[test]
    fn refuses_what_no_run_would_act_on() {
        for (text, why) in [
            ("", "`` is not one of replicate, prune, verify"),
            ("drill", "`drill` is not one of replicate, prune, verify"),
            ("replicate --vault x", "`replicate` takes no `--vault` here"),
            ("prune --apply", "`prune` takes no `--apply` here"),
            ("verify k3f9xa", "`verify` takes no `k3f9xa` here"),
            ("verify --full=yes", "`verify` takes no `--full=yes` here"),
            ("verify --identity x", "`verify` takes no `--identity` here"),
            ("verify --full --full", "`--full` is there twice"),
            ("verify --read-data 1/2 --read-data 2/2", "`--read-data` is there twice"),
            ("verify --read-data", "`` is not a share like 1/30"),
            ("verify --read-data 3/2", "`3/2` is not a share like 1/30"),
        ] {
            assert_eq!(text.parse::<Step>().map_err(|error| error.to_string()), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_share_is_a_part_of_its_parts() {
        assert_eq!("2/30".parse(), Ok(Share { part: 2, parts: 30 }));
        for wrong in ["0/3", "4/3", "1", "1/", "/3", "a/b", "1/0", "-1/3", ""] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
    }
}
