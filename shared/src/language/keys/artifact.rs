//! Keys of `artifacts`.

use super::*;
use crate::language::model::{ArtifactWhen, IfMissing};
use crate::language::shape::{Table, key, needed};
use strum::VariantNames;

/// One entry or a list of them; an entry is a path, or a map with `from`.
pub(crate) const ARTIFACTS: Kind = Kind::ByType {
    scalar: Some(&TEMPLATE),
    list: Some(&Kind::List(&ENTRY)),
    map: Some(&Kind::Table(|| &ARTIFACT)),
};

const ENTRY: Kind = Kind::ByType {
    scalar: Some(&TEMPLATE),
    list: None,
    map: Some(&Kind::Table(|| &ARTIFACT)),
};

static ARTIFACT: Table = Table {
    name: "an artifact",
    doc: "Files that are kept with the run. They are copied before clean-up, also after a failure, a timeout or a cancel.",
    keys: &[&[
        needed(
            "from",
            TEMPLATE,
            "a path or a glob (`*`, `?`, `**`): `SERVICE:/path`, a path in the workspace, or, in a service, a path in it",
        ),
        key(
            "name",
            TEMPLATE,
            "name of the file; for a glob, of the directory that holds the files. By default the path below the glob's directory",
        ),
        key(
            "when",
            Kind::Leaf(Leaf::Enum(ArtifactWhen::VARIANTS)),
            "`always` (default), or `failed`: unless the step or cell passed or was skipped",
        ),
        key("max", BYTES, "maximum size of one file (64MiB)"),
        key(
            "mask",
            FLAG,
            "`false` leaves secrets as they are (true); pictures, videos, archives and PDFs are never masked",
        ),
        key(
            "if-no-files-found",
            Kind::Leaf(Leaf::Enum(IfMissing::VARIANTS)),
            "`warn` (default): reports say so; `error`: what would have passed is errored; `ignore`",
        ),
    ]],
    rest: None,
    rules: &[],
    hints: &[
        ("path", "it is called `from`"),
        ("paths", "write one entry per path, each with `from`"),
        ("if", "it is called `when`, with `always` or `failed`"),
        (
            "retention-days",
            "artifacts are removed with their run: the setting keep.runs_days",
        ),
        (
            "retention",
            "artifacts are removed with their run: the setting keep.runs_days",
        ),
        (
            "expire_in",
            "artifacts are removed with their run: the setting keep.runs_days",
        ),
    ],
};
