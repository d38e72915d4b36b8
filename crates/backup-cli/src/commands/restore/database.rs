//! A database's restore: where to, what the engine plans, and its proof.

use backup_core::config::SourceKind;
use backup_core::id::SourceName;
use backup_core::secret::Secret;
use backup_core::snapshot::OpenSnapshot;
use backup_core::source::postgres::restore::{
    self, EARLY_BYTES, RestoreOptions, RestorePlan, Selection, Snapshot, Target, Verify,
};
use backup_core::source::postgres::{ClientsOption, ConnectOptions};

use super::expect;
use super::proof::Proof;
use super::{Args, Compare, Scene};
use crate::error::CliError;
use crate::{runtime, session, words};

/// A planned restore of a database.
pub(super) struct Database {
    options: RestoreOptions,
    plan: RestorePlan,
}

impl Database {
    pub(super) async fn plan(
        scene: &Scene<'_>,
        args: &Args,
        source: &SourceName,
        snapshot: &OpenSnapshot,
    ) -> Result<Self, CliError> {
        let options = options(scene, args, source, snapshot)?;
        let plan =
            restore::plan(&options, &described(snapshot), snapshot).await.map_err(|error| at_url(args, error))?;
        Ok(Self { options, plan })
    }

    pub(super) fn name(&self) -> &str {
        &self.plan.database
    }

    pub(super) fn describe(&self) -> Vec<String> {
        let plan = &self.plan;
        let mut lines = vec![format!(
            "  database {} on {}: {} tables, {} rows, {}",
            plan.database,
            self.options.connect.address(),
            plan.tables,
            plan.rows,
            words::bytes(plan.bytes)
        )];
        if !plan.create_roles.is_empty() {
            lines.push(format!("  roles to create: {}", plan.create_roles.join(", ")));
        }
        if let Some(kept) = &plan.kept_as {
            let size = plan.replaced_bytes.map_or_else(String::new, |bytes| format!(" ({})", words::bytes(bytes)));
            lines.push(format!("  the present database{size} is kept as {kept}"));
            let needed = words::bytes(plan.bytes);
            lines.push(format!("  space needed beside it on the server: about {needed} and its indexes"));
        }
        if self.options.only == Selection::All && !self.options.expect.checks.is_empty() {
            let names: Vec<&str> = self.options.expect.checks.iter().map(|check| check.name.as_str()).collect();
            lines.push(format!("  checks to be true before it gets its name: {}", names.join(", ")));
        }
        lines.extend(plan.notes.iter().map(|note| format!("  note: {note}")));
        lines
    }

    pub(super) fn refusals(&self) -> Vec<String> {
        self.plan.refusals.clone()
    }

    /// What to do where it must not start.
    pub(super) fn way_out(&self) -> &'static str {
        way_out(&self.options.target, &self.options.only)
    }

    pub(super) async fn execute(
        self,
        scene: &Scene<'_>,
        source: &SourceName,
        snapshot: &OpenSnapshot,
    ) -> Result<Proof, CliError> {
        let described = described(snapshot);
        let monitor = &*scene.monitor;
        let (connect, working) = (&self.options.connect, &self.plan.working);
        runtime::leaves(format!(
            "what it had restored is left on {} as the database `{working}`: remove it with `dropdb --force` there",
            connect.address()
        ));
        let restored = restore::execute(&self.plan, &self.options, &described, snapshot, monitor).await;
        runtime::leaves_nothing();
        match restored {
            Ok(proof) => Ok(Proof::database(source, snapshot, &proof)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whoever named a database is not told of `--replace`: it takes the source's own, and does not go together with `--into`.
fn way_out(target: &Target, only: &Selection) -> &'static str {
    match (target, only) {
        (Target::Into(_), _) => {
            "name a database that does not exist yet: `--into NAME`, or at the end of the server's address; or restore plain \
             files with `--into-dir DIR`"
        }
        (Target::Original, Selection::All) => {
            "restore beside it with `--into NAME` or `--into-dir DIR`, or replace it with `--replace`"
        }
        (Target::Original | Target::Replace, _) => "restore beside it with `--into NAME`",
    }
}

/// An error of the server that `--into postgres://…` names: no key of the configuration has a part in it.
pub(super) fn at_url<E: std::error::Error + 'static>(args: &Args, error: E) -> CliError
where
    CliError: From<E>,
{
    let causes = std::iter::successors(Some(&error as &(dyn std::error::Error + 'static)), |error| error.source());
    // An error that shows another one as its own is seen through by its text alone.
    let text: Vec<String> = causes.map(ToString::to_string).collect();
    let said = |part: &str| text.iter().any(|text| text.contains(part));
    let password = if said("refuses user") {
        Some(
            "put the password into $PGPASSWORD (`read -rs PGPASSWORD; export PGPASSWORD`), and check the server's pg_hba.conf",
        )
    } else if said("it holds a password") {
        Some("write `--into postgres://USER@HOST:PORT/DB`, and put the password into $PGPASSWORD")
    } else {
        None
    };
    let error = CliError::from(error);
    match password.filter(|_| is_url(args)) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn is_url(args: &Args) -> bool {
    args.into.as_deref().is_some_and(|into| into.starts_with("postgres") && into.contains("://"))
}

/// What is asked for, to whichever server it goes.
pub(super) fn options(
    scene: &Scene<'_>,
    args: &Args,
    source: &SourceName,
    snapshot: &OpenSnapshot,
) -> Result<RestoreOptions, CliError> {
    let (connect, clients, target) = place(scene, args, source)?;
    let mut id = [0; 4];
    getrandom::fill(&mut id).expect("the system gives random bytes");
    Ok(RestoreOptions {
        source: source.to_string(),
        connect,
        maintenance: "postgres".to_owned(),
        clients,
        target,
        only: selection(args),
        jobs: std::thread::available_parallelism().map_or(2, usize::from),
        verify: match args.verify {
            Compare::Counts => Verify::Counts,
            Compare::Content => Verify::Content,
        },
        expect: expect::of(scene, source, snapshot),
        id: hex::encode(id),
        at: scene.cx.clock.now(),
        early_bytes: EARLY_BYTES,
        keep_failed: false,
    })
}

pub(super) fn described(snapshot: &OpenSnapshot) -> Snapshot<'_> {
    let manifest = snapshot.manifest();
    Snapshot { streams: &manifest.streams, tables: &manifest.tables, properties: &manifest.properties }
}

fn selection(args: &Args) -> Selection {
    match (&args.table, &args.schema) {
        (Some(table), _) => {
            let (schema, name) = table.split_once('.').unwrap_or(("public", table));
            Selection::Table { schema: schema.to_owned(), name: name.to_owned() }
        }
        (None, Some(schema)) => Selection::Schema(schema.clone()),
        (None, None) => Selection::All,
    }
}

/// The server and the name: from `--into`'s address, or from the configuration.
fn place(
    scene: &Scene<'_>,
    args: &Args,
    source: &SourceName,
) -> Result<(ConnectOptions, ClientsOption, Target), CliError> {
    let configured = scene.config.as_ref().and_then(|config| config.source(source.as_str()));
    let configured = configured.and_then(|source| match &source.kind {
        SourceKind::Postgres(postgres) => Some(postgres),
        _ => None,
    });
    let clients = configured.map_or(ClientsOption::Search, |postgres| session::clients(&postgres.clients));
    if let Some(url) = args.into.as_deref().filter(|_| is_url(args)) {
        let password = std::env::var("PGPASSWORD").ok().filter(|text| !text.is_empty()).map(Secret::new);
        let connect = ConnectOptions::new(url, password).map_err(|error| at_url(args, error))?;
        let target = Target::Into(connect.database().to_owned());
        return Ok((connect, clients, target));
    }
    let Some(postgres) = configured else {
        return Err(CliError::usage("no server is known for it")
            .hint("name it with `--into postgres://USER@HOST:PORT/DB`, or restore plain files with `--into-dir DIR`"));
    };
    let connect = session::connect(source, postgres)?;
    if args.replace {
        return Ok((connect, clients, Target::Replace));
    }
    let target = match &args.into {
        Some(name) => Target::Into(name.clone()),
        None => Target::Original,
    };
    Ok((connect, clients, target))
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;

    /// An error that shows another one as its own, as the engine's do.
    #[derive(Debug)]
    struct Shown(&'static str);
    impl std::fmt::Display for Shown {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }
    impl std::error::Error for Shown {}
    impl From<Shown> for CliError {
        fn from(error: Shown) -> Self {
            Self::usage(error.0).hint("check `password`")
        }
    }

    #[test]
    fn only_who_named_no_other_target_is_told_of_replacing() {
        let table = Selection::Table { schema: "public".into(), name: "t".into() };
        for (target, only, told) in [
            (Target::Original, Selection::All, true),
            (Target::Original, table, false),
            (Target::Into("x".into()), Selection::All, false),
            (Target::Replace, Selection::All, false),
        ] {
            let hint = way_out(&target, &only);
            assert_eq!((hint.contains("--replace"), hint.contains("--into NAME")), (told, true), "{target:?} {only:?}");
        }
    }

    #[test]
    fn a_server_named_in_the_call_takes_its_password_from_the_environment() {
        let refused =
            || Shown("the PostgreSQL server at `h:1` refuses user `u`: wrong or missing password, or no such user");
        let password = || ConnectOptions::new("postgres://u:p@h:1/d", None).unwrap_err();
        let named: Args = parse(&["--into", "postgres://u@h:1/d"]).unwrap();
        for error in [at_url(&named, password()), at_url(&named, refused())] {
            assert!(error.advice().unwrap().contains("$PGPASSWORD"), "{error:?}");
        }
        let other = at_url(&named, Shown("the server is down"));
        assert_eq!(other.advice(), Some("check `password`"));
        let configured: Args = parse(&["--into", "d"]).unwrap();
        for error in [at_url(&configured, password()), at_url(&configured, refused())] {
            assert!(!error.advice().unwrap().contains("$PGPASSWORD"), "{error:?}");
        }
    }
}
