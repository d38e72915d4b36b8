//! `backup verify`.

use backup_core::id::SourceName;

/// A share of the data: part `part` of `parts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Which part, from 1.
    pub(crate) part: u32,
    /// How many parts there are.
    pub(crate) parts: u32,
}

/// Check signatures, chains and inventories; with --read-data also the data itself
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Read and hash this share of the objects: 1/30 a day reads all in a month
    #[arg(long, value_name = "n/m", value_parser = share)]
    pub(crate) read_data: Option<Share>,
    /// Only this vault
    #[arg(long, value_name = "NAME")]
    pub(crate) vault: Option<String>,
    /// Only these sources
    #[arg(long, value_name = "S")]
    pub(crate) source: Vec<SourceName>,
}

fn share(text: &str) -> Result<Share, String> {
    let refused = || format!("`{text}` is not a share like 1/30");
    let (part, parts) = text.split_once('/').ok_or_else(refused)?;
    let share = Share { part: part.parse().map_err(|_| refused())?, parts: parts.parse().map_err(|_| refused())? };
    if share.part == 0 || share.part > share.parts { Err(refused()) } else { Ok(share) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::restore::tests::parse;

    #[test]
    fn reads_a_share() {
        let args: Args = parse(&["--read-data", "2/30"]).unwrap();
        assert_eq!(args.read_data, Some(Share { part: 2, parts: 30 }));
        for wrong in ["0/3", "4/3", "1", "1/", "/3", "a/b", "1/0", "-1/3"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
