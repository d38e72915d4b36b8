//! Which sources a part or a target can mean. Pure, so that a wrong call ends before a vault is asked.

use backup_core::id::SourceName;

use super::Args;
use crate::error::CliError;

const FILES: &str = "files";
const DATABASE: &str = "postgres";

/// Whether a source has the part that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It may have it.
    Good,
    /// It is of another type, and nobody named it.
    LeftOut,
    /// It is of another type, and was named.
    Refused(CliError),
}

/// Refuses what needs no vault to be refused.
pub(super) fn check(args: &Args) -> Result<(), CliError> {
    match asked(args) {
        Some((flag, DATABASE)) if args.into.is_none() && !args.data_only && args.into_schema.is_none() => {
            Err(CliError::usage(format!("`{flag}` is restored into a new database, and `--into` does not name one"))
                .hint("name it with `--into NAME`, and the database that it is taken from with `--source NAME`"))
        }
        _ => Ok(()),
    }
}

/// The flag of the part, and the type of source that has such parts.
fn asked(args: &Args) -> Option<(&'static str, &'static str)> {
    let flags = [
        (args.path.is_some(), "--path", FILES),
        (args.table.is_some(), "--table", DATABASE),
        (args.schema.is_some(), "--schema", DATABASE),
        (args.data_only, "--data-only", DATABASE),
    ];
    flags.into_iter().find(|(given, ..)| *given).map(|(_, flag, kind)| (flag, kind))
}

/// Whether a source of this type has the part that is asked for.
pub(super) fn fit(args: &Args, source: &SourceName, source_type: &str) -> Fit {
    match asked(args) {
        Some((flag, kind)) if kind != source_type => {
            if args.id.is_none() && !args.source.contains(source) {
                return Fit::LeftOut;
            }
            let error = format!("`{flag}` is for sources of type `{kind}`, and `{source}` is of type `{source_type}`");
            Fit::Refused(CliError::usage(error).hint("choose another source with `--source NAME`"))
        }
        _ => Fit::Good,
    }
}

/// Refuses `--into` where it does not mean exactly one of the chosen databases.
pub(super) fn into(args: &Args, chosen: &[(&SourceName, &str)]) -> Result<(), CliError> {
    let names = || chosen.iter().filter(|(_, kind)| *kind == DATABASE).map(|(name, _)| format!("`{name}`"));
    match names().count() {
        _ if args.into.is_none() => Ok(()),
        1 => Ok(()),
        0 => Err(CliError::usage("`--into` names a database, and no database is chosen")
            .hint("choose one with `--source NAME`, or restore files with `--into-dir DIR`")),
        _ => {
            let names: Vec<String> = names().collect();
            Err(CliError::usage(format!("`--into` names one database, and chosen are {}", names.join(", ")))
                .hint("choose one of them with `--source NAME`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;

    fn args(line: &[&str]) -> Args {
        parse(line).unwrap()
    }

    #[test]
    fn a_part_of_a_database_needs_a_new_one() {
        for wrong in [&["--table", "t"][..], &["--schema", "s", "--into-dir", "d"], &["--table", "t", "--replace"]] {
            let error = check(&args(wrong)).unwrap_err();
            assert!(error.message().starts_with(&format!("`{}` is restored into", wrong[0])), "{error:?}");
            assert!(error.advice().unwrap().contains("--source"), "{error:?}");
        }
        for good in [
            &["--table", "t", "--into", "n"][..],
            &["--table", "t", "--data-only"],
            &["--table", "t", "--into-schema", "n"],
            &["--path", "/p", "--into-dir", "d"],
            &["--replace"],
        ] {
            assert_eq!(check(&args(good)), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn a_part_leaves_out_sources_of_another_type_and_refuses_named_ones() {
        let (db, files): (SourceName, SourceName) = ("db".parse().unwrap(), "conf".parse().unwrap());
        let path = args(&["--path", "/p"]);
        assert_eq!(fit(&path, &files, "files"), Fit::Good);
        assert_eq!(fit(&path, &db, "postgres"), Fit::LeftOut);
        for named in [&["--path", "/p", "--source", "db"][..], &["abc234", "--path", "/p"]] {
            let Fit::Refused(error) = fit(&args(named), &db, "postgres") else { panic!("{named:?}") };
            assert!(error.message().contains("`--path`") && error.advice().unwrap().contains("--source"), "{error:?}");
        }
        let table = args(&["--table", "t", "--into", "n"]);
        assert_eq!(fit(&table, &db, "postgres"), Fit::Good);
        assert_eq!(fit(&table, &files, "files"), Fit::LeftOut);
        assert_eq!(fit(&args(&[]), &files, "files"), Fit::Good);
        let rows = args(&["--data-only"]);
        assert_eq!((fit(&rows, &db, "postgres"), fit(&rows, &files, "files")), (Fit::Good, Fit::LeftOut));
    }

    #[test]
    fn into_means_one_database() {
        let (a, b, c): (SourceName, SourceName, SourceName) =
            ("a".parse().unwrap(), "b".parse().unwrap(), "c".parse().unwrap());
        let into_n = args(&["--into", "n"]);
        assert_eq!(into(&into_n, &[(&a, "postgres"), (&c, "files")]), Ok(()));
        let two = into(&into_n, &[(&a, "postgres"), (&b, "postgres")]).unwrap_err();
        assert_eq!(two.message(), "`--into` names one database, and chosen are `a`, `b`");
        assert!(into(&into_n, &[(&c, "files")]).is_err(), "files would go to their old places");
        assert_eq!(into(&args(&[]), &[(&a, "postgres"), (&b, "postgres")]), Ok(()));
    }
}
