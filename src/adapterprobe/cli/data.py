"""`adapterprobe data`: what data sets there are, what their prompts look like, and what is wrong with them."""

from __future__ import annotations

import argparse
import json

from adapterprobe.cli.options import (
    DATA_HELP,
    MODEL_HELP,
    add_model_options,
    add_prompt_options,
    add_read_options,
    add_trust_option,
    model_arguments,
    reading,
)
from adapterprobe.errors import AdapterProbeError, DataError, OutputError
from adapterprobe.terminal import echo

CHECK_EPILOG = """examples:
  adapterprobe data check mine.csv --group city --against capitals
  adapterprobe data check capitals elements animals
  adapterprobe data check claims.jsonl --column statement=text --column label=y --json findings.json"""
FORMS = ["question", "negated", "statement", "choice", "recall"]


def add(commands) -> None:
    parser = commands.add_parser(
        "data", help="list data sets, show their prompts, check them", description="Look at data sets."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="all data sets by name, the built-in ones with their sizes")
    listing.set_defaults(go=go_list)
    show = verbs.add_parser(
        "show",
        help="prompts exactly as sent, with labels and choice tokens",
        description="Print prompts of a data set as they are tokenised, the four label axes, and the choices' tokens.",
    )
    _add_name(show)
    show.add_argument("--limit", type=int, default=2, metavar="N", help="how many groups (default: 2)")
    add_prompt_options(show, FORMS)
    show.add_argument("--no-model", action="store_true", help="do not load a model: no tokens, no answers")
    add_model_options(show)
    add_read_options(show)
    show.set_defaults(go=go_show)

    check = verbs.add_parser(
        "check",
        help="find what ruins lie-detection results: duplicates, leaks, imbalance, shortcuts, colliding choices",
        description="Check data sets. Exit status 0: nothing blocks; 1: a finding blocks; 2: a data set cannot be read.",
        epilog=CHECK_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("names", nargs="*", metavar="D", help=DATA_HELP)
    check.add_argument(
        "--data", action="append", default=[], metavar="D", help="the same as the arguments (repeatable)"
    )
    check.add_argument(
        "--against", action="append", default=[], metavar="D", help="a data set that it is used beside (repeatable)"
    )
    check.add_argument("--json", metavar="FILE", help="write the findings there too, with all their rows")
    add_prompt_options(check, FORMS)
    check.add_argument("--model", metavar="M", help=f"whose tokenizer and context are checked: {MODEL_HELP}")
    check.add_argument("--no-model", action="store_true", help="leave out what needs a tokenizer")
    add_trust_option(check)
    add_read_options(check)
    check.set_defaults(go=go_check)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="D", help=DATA_HELP)
    parser.add_argument("--data", metavar="D", help="the same as the first argument")


def _name(args: argparse.Namespace) -> str:
    if (args.name is None) == (args.data is None):
        raise DataError(f"name one data set, for example `adapterprobe data {args.verb} capitals`")
    return args.name or args.data


def go_list(args: argparse.Namespace) -> None:
    from adapterprobe.data import hub_table, load_relation, relation_names
    from adapterprobe.data.registered import registered_names

    echo(f"{'name':<18}{'facts':>6}{'groups':>8}{'objects':>9}  checked by     title")
    total = 0
    for name in relation_names():
        relation = load_relation(name)
        total += len(relation.facts)
        objects = len({fact.object for fact in relation.facts})
        echo(
            f"{name:<18}{len(relation.facts):>6}{len(relation.groups):>8}{objects:>9}  {relation.checked_by:<14} {relation.title}"
        )
    echo(f"{len(relation_names())} relations, {total} facts; swapped-NAME: the same with their answers exchanged\n")
    echo(f"{'on the hub':<18}{'repository':<44}{'split':<12}title")
    for name, entry in hub_table().items():
        where = f"{entry.hub}{f' ({entry.config})' if entry.config else ''}"
        echo(f"{name:<18}{where:<44}{entry.split:<12}{entry.title}")
    for name in registered_names():
        echo(f"{name:<18}registered by a plug-in")
    echo("others by hub:OWNER/NAME; your own .jsonl, .csv, .tsv, .parquet file or saved folder by its path")


def go_show(args: argparse.Namespace) -> None:
    if args.limit < 1 or args.shots < 0 or args.seed < 0:
        raise DataError(
            f"expected --limit of at least 1, --shots and --seed of at least 0, got {args.limit}, {args.shots}, {args.seed}"
        )
    from adapterprobe.data.references import refuse_unused
    from adapterprobe.pipeline.show_prompts import show
    from adapterprobe.prompts import one_or_several
    from adapterprobe.prompts.dataset_prompts import DatasetSpec

    spec = DatasetSpec(
        _name(args),
        args.form,
        args.shots,
        args.format,
        args.seed,
        one_or_several(args.system),
        facts=args.limit,
        templates=args.template,
        read=reading(args),
    )
    refuse_unused([spec.name], spec.read)
    for line in show(spec, None if args.no_model else model_arguments(args)):
        echo(line)


def go_check(args: argparse.Namespace) -> int:
    names = [*args.names, *args.data]
    if not names:
        raise DataError("name at least one data set, for example `adapterprobe data check capitals`")
    from adapterprobe.checks import check
    from adapterprobe.data.references import refuse_unused
    from adapterprobe.models.load import load_reader
    from adapterprobe.prompts import one_or_several
    from adapterprobe.prompts.dataset_prompts import DatasetSpec

    system = one_or_several(args.system)
    specs = [
        DatasetSpec(
            name, args.form, args.shots, args.format, args.seed, system, templates=args.template, read=reading(args)
        )
        for name in names
    ]
    reader = None if args.no_model else load_reader(args.model, trust_remote_code=args.trust_remote_code)
    refuse_unused(names, specs[0].read)
    done, failed = [], None
    for spec in specs:
        try:
            done.append(check(spec, args.against, reader))
            echo(done[-1])
        except AdapterProbeError as error:
            # The others are still worth checking; this one decides the exit status.
            if len(specs) > 1:
                echo(f"{spec.name}: cannot be checked")
            failed = failed or error
    if args.json:
        write_json(args.json, done)
    if failed is not None:
        raise failed
    return 1 if any(checked.blocked for checked in done) else 0


def write_json(path: str, done) -> None:
    from adapterprobe.cache import write_atomic
    from adapterprobe.small_files import as_path

    content = [
        {
            "data": c.name,
            "rows": c.entries,
            "groups": c.groups,
            "blocked": c.blocked,
            "findings": [f.to_json() for f in c.findings],
        }
        for c in done
    ]
    target = as_path(path, OutputError)
    if target.is_dir() or not target.name:
        raise OutputError(f"cannot write {path}: it is a folder; give a file")
    try:
        write_atomic(target, json.dumps(content, indent=1, ensure_ascii=False))
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror})") from error
