"""`adapterprobe cache`: what is kept, and how to free its space."""

from __future__ import annotations

import argparse

from adapterprobe.terminal import echo

PRUNE_HELP = """Remove entries of the cache. Whatever a finished run needs is in its own folder; the cache only spares
computing things again. Entries that a run is using are left alone."""


def add(commands) -> None:
    parser = commands.add_parser(
        "cache", help="show or free the space of the cache", description="Look after the cache."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="entries with size, age and state")
    listing.set_defaults(go=go_list)
    prune = verbs.add_parser("prune", help="remove entries", description=PRUNE_HELP)
    prune.add_argument(
        "--kind", action="append", metavar="KIND", help="only of this kind: models, states ... (repeatable)"
    )
    prune.add_argument("--older-than", type=float, metavar="DAYS", help="only those not used for so many days")
    prune.add_argument("--unfinished", action="store_true", help="only what stopped runs left behind")
    prune.add_argument("--all", action="store_true", help="everything (needed where nothing else is chosen)")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    prune.set_defaults(go=go_prune)


def size(count: int) -> str:
    """Bytes for people.

    >>> size(512), size(3 * 2**20)
    ('512 B', '3.0 MiB')
    """
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def go_list(args: argparse.Namespace) -> None:
    from adapterprobe.cache import cache_root
    from adapterprobe.cache_entries import cache_entries

    entries = cache_entries()
    echo(f"{'kind':<10}{'size':>11}{'days unused':>13}  {'state':<11} key")
    for entry in entries:
        echo(f"{entry.kind:<10}{size(entry.size):>11}{entry.idle_days:>13.1f}  {entry.state:<11} {entry.key}")
    echo(f"{len(entries)} entries, {size(sum(entry.size for entry in entries))} in {cache_root()}")


def go_prune(args: argparse.Namespace) -> None:
    from adapterprobe.cache_entries import prune
    from adapterprobe.errors import ConfigError

    if not (args.all or args.kind or args.unfinished or args.older_than is not None):
        raise ConfigError("say what to remove: --kind, --older-than DAYS, --unfinished, or --all")
    if args.older_than is not None and args.older_than < 0:
        raise ConfigError(f"--older-than expects days of at least 0, got {args.older_than}")
    removed = prune(args.kind, args.older_than, args.unfinished, args.dry_run)
    for entry in removed:
        echo(f"{entry.kind}/{entry.key}  {size(entry.size)}")
    verb = "would be removed" if args.dry_run else "removed"
    echo(f"{len(removed)} entries, {size(sum(entry.size for entry in removed))} {verb}")
