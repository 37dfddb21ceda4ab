"""`adapterprobe data`: what built-in data sets there are, and what their prompts look like."""

from __future__ import annotations

import argparse

from adapterprobe.cli.options import add_model_options, add_prompt_options, model_arguments, one_or_several


def add(commands) -> None:
    parser = commands.add_parser("data", help="list data sets, show their prompts", description="Look at data sets.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="all data sets with their sizes")
    listing.set_defaults(go=go_list)
    show = verbs.add_parser(
        "show",
        help="prompts exactly as sent, with labels and choice tokens",
        description="Print prompts of a data set as they are tokenised, the four label axes, and the choices' tokens.",
    )
    show.add_argument("name", nargs="?", help="data set (see `adapterprobe data list`)")
    show.add_argument("--data", metavar="NAME", help="the same as the first argument")
    show.add_argument("--limit", type=int, default=2, metavar="N", help="how many facts (default: 2)")
    add_prompt_options(show, ["question", "negated", "statement", "recall"])
    show.add_argument("--no-model", action="store_true", help="do not load a model: no tokens, no answers")
    add_model_options(show)
    show.set_defaults(go=go_show)


def go_list(args: argparse.Namespace) -> None:
    from adapterprobe.data import load_relation, relation_names

    print(f"{'name':<18}{'facts':>6}{'groups':>8}{'objects':>9}  checked by     title")
    total = 0
    for name in relation_names():
        relation = load_relation(name)
        total += len(relation.facts)
        objects = len({fact.object for fact in relation.facts})
        print(
            f"{name:<18}{len(relation.facts):>6}{len(relation.groups):>8}{objects:>9}  {relation.checked_by:<14} {relation.title}"
        )
    print(f"{len(relation_names())} relations, {total} facts")


def go_show(args: argparse.Namespace) -> None:
    from adapterprobe.errors import DataError

    if (args.name is None) == (args.data is None):
        raise DataError("name one data set, for example `adapterprobe data show capitals`")
    if args.limit < 1 or args.shots < 0 or args.seed < 0:
        raise DataError(
            f"expected --limit of at least 1, --shots and --seed of at least 0, got {args.limit}, {args.shots}, {args.seed}"
        )
    from adapterprobe.pipeline.show import show

    for line in show(
        args.name or args.data,
        args.form,
        args.limit,
        args.shots,
        args.format,
        args.seed,
        one_or_several(args.system),
        None if args.no_model else model_arguments(args),
    ):
        print(line)
