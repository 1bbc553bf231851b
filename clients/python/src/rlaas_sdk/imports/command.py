"""`rlaas import`."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import click
from rich.console import Console

from rlaas_sdk.configuration import resolve_destination
from rlaas_sdk.errors import NotConfigured
from rlaas_sdk.imports import langfuse_export, litellm_logs, openai_logs
from rlaas_sdk.imports.csv_columns import ColumnMap, MapRefused
from rlaas_sdk.imports.exchange import MAX_TAG, MAX_TAGS, ImportContext
from rlaas_sdk.imports.files import FileUnreadable, SourceFile
from rlaas_sdk.imports.identity import Identity
from rlaas_sdk.imports.importing import Plan, Reader, keep_whole_row, run_import
from rlaas_sdk.imports.langfuse_export import LangfuseReader
from rlaas_sdk.imports.progress import State, Totals
from rlaas_sdk.imports.rows import JsonObject
from rlaas_sdk.imports.sending import Service, Stopped
from rlaas_sdk.imports.terminal import Bar, LogLines, build_summary

FORMATS = ("openai", "langfuse", "litellm", "csv")
_SKILL = re.compile(r"(?=.{1,28}\Z)[a-z0-9]+(-[a-z0-9]+)*")
_EPILOG = "Exit status: 0 when every row was taken, 1 when some were refused or the service did not answer, 2 when the command is wrong."


def _check_skill(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not _SKILL.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no skill's name; it is lower-case words joined by hyphens, 28 characters at most")
    return value


def _check_tags(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) > MAX_TAGS or any(not 1 <= len(tag) <= MAX_TAG for tag in value):
        raise click.BadParameter(f"give at most {MAX_TAGS} tags of 1 to {MAX_TAG} characters each")
    return value


@click.command("import", epilog=_EPILOG)
@click.argument("format_name", metavar="FORMAT", type=click.Choice(FORMATS))
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--skill", required=True, callback=_check_skill, help="The skill that the events are of.")
@click.option("--api-url", envvar="RLAAS_API_URL", help="The service's address [env: RLAAS_API_URL].")
@click.option("--api-key", envvar="RLAAS_API_KEY", help="A secret key with the scope telemetry [env: RLAAS_API_KEY].")
@click.option("--tag", "tags", multiple=True, callback=_check_tags, help="A tag for every event; may be given several times.")
@click.option("--map", "pairs", multiple=True, metavar="FIELD=COLUMN", help="csv only: which column holds a field; once a field.")
@click.option("--delimiter", default=",", show_default=True, help="The character between the cells of a CSV file.")
@click.option("--rating", "ratings", multiple=True, metavar="SCORE", help="langfuse only: this score is a person's rating in [0, 1].")
@click.option("--namespace", default="", help="A name that tells apart sources with the same ids, such as batches of the batch API.")
@click.option(
    "--dry-run", is_flag=True, help="Store nothing. With --api-url the service checks every event, without it the files are only read."
)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write refused rows and why to this file (JSON Lines).")
@click.option("--include-rows", is_flag=True, help="Put the refused rows themselves into the report; they may be personal data.")
@click.option("--concurrency", type=click.IntRange(1, 16), default=4, show_default=True, help="Requests under way at once.")
@click.option("--give-up-after", type=click.FloatRange(min=0), default=600.0, show_default=True, help="Seconds without any event taken.")
def import_command(
    format_name: str,
    paths: tuple[Path, ...],
    skill: str,
    api_url: str | None,
    api_key: str | None,
    tags: tuple[str, ...],
    pairs: tuple[str, ...],
    delimiter: str,
    ratings: tuple[str, ...],
    namespace: str,
    dry_run: bool,
    report: Path | None,
    include_rows: bool,
    concurrency: int,
    give_up_after: float,
) -> None:
    """Import existing logs as interactions, outputs and feedback.

    FORMAT is openai, langfuse, litellm or csv; FILE may be gzipped. After an interruption, the same command continues
    where the interrupted one stopped; after a complete import, it changes nothing.
    """
    _check_options(format_name, pairs, delimiter, ratings, report, include_rows=include_rows)
    service = _build_service(api_url, api_key, give_up_after, is_required=not dry_run)
    files, columns = _open_files(format_name, paths, pairs, delimiter)
    context = ImportContext(Identity(format_name, skill, namespace), tags)

    def build_plan(reader: Reader, parts: Callable[[JsonObject], list[JsonObject]] = keep_whole_row) -> Plan:
        options = repr((sorted(columns.columns.items()) if columns else None, sorted(ratings)))
        return Plan(
            files,
            reader,
            context,
            service,
            parts,
            dry_run,
            delimiter,
            concurrency,
            report,
            include_rows=include_rows,
            options=options,
        )

    reader = litellm_logs.build_events if format_name == "litellm" else openai_logs.build_events
    import_plan = build_plan(columns.build_events if columns else reader)
    with tempfile.TemporaryDirectory() as scratch:
        state_file = Path(scratch, "state") if dry_run else _choose_state_path(report, import_plan)
        with closing(State(state_file, import_plan.key())) as state:
            if format_name == "langfuse":
                import_plan = build_plan(LangfuseReader(state, frozenset(ratings)).build_events, langfuse_export.split_parts)
            totals = _run(import_plan, state)
    if totals.refused_rows:
        where = f"; see {report}" if report else "; run it with --report FILE to see which"
        click.echo(f"{totals.refused_rows:,} of {totals.rows:,} rows were refused{where}", err=True)
        sys.exit(1)


def _check_options(
    format_name: str, pairs: tuple[str, ...], delimiter: str, ratings: tuple[str, ...], report: Path | None, *, include_rows: bool
) -> None:
    if pairs and format_name != "csv":
        raise click.UsageError(f"--map is for csv; {format_name} files name their own fields")
    if ratings and format_name != "langfuse":
        raise click.UsageError(f"--rating is for langfuse, not for {format_name}")
    if len(delimiter) != 1:
        raise click.UsageError(f"--delimiter is one character, not {delimiter!r}")
    if include_rows and report is None:
        raise click.UsageError("--include-rows puts rows into the report; name the report with --report FILE")


def _open_files(
    format_name: str, paths: tuple[Path, ...], pairs: tuple[str, ...], delimiter: str
) -> tuple[list[SourceFile], ColumnMap | None]:
    """The files, and for csv the column map that `pairs` give, checked against each file's header."""
    try:
        files = [SourceFile.open(path, "csv" if format_name == "csv" else None) for path in paths]
        columns = ColumnMap.parse(pairs) if format_name == "csv" else None
        if columns is not None:
            for file in files:
                columns.check(file.header(delimiter), str(file.path))
    except (FileUnreadable, MapRefused) as error:
        raise click.UsageError(str(error)) from error
    return files, columns


def _build_service(api_url: str | None, api_key: str | None, give_up_after: float, *, is_required: bool) -> Service | None:
    if not (api_url or "").strip() and not is_required:
        return None
    try:
        return Service(*resolve_destination(api_url, api_key), give_up_after)
    except NotConfigured as error:
        raise click.UsageError(str(error)) from None


def _choose_state_path(report: Path | None, plan: Plan) -> Path:
    if report is not None:
        return report.with_name(report.name + ".state")
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "rlaas" / f"import-{plan.key()[:16]}.state"


def _run(plan: Plan, state: State) -> Totals:
    errors = Console(stderr=True)
    watcher = Bar(errors) if errors.is_terminal else LogLines(lambda line: click.echo(line, err=True))
    try:
        with watcher:
            totals = run_import(plan, state, watcher)
            watcher.finish()
    except Stopped as stopped:
        click.echo(f"Error: {stopped}", err=True)
        sys.exit(2 if stopped.usage else 1)
    except KeyboardInterrupt:
        click.echo("stopped; run the same command again to continue from here", err=True)
        sys.exit(130)
    title = f"import of {plan.context.identity.origin} into {plan.context.skill}" + (
        " (dry run: nothing was stored)" if plan.dry_run else ""
    )
    click.echo(title)
    Console(width=None if sys.stdout.isatty() else 100).print(build_summary(totals, is_sent=plan.service is not None))
    return totals
