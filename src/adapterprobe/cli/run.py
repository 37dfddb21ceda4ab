"""`adapterprobe run`: the whole comparison, from questions to a report."""

from __future__ import annotations

import argparse
import functools

from adapterprobe.cli.options import DATA_HELP, add_model_options, add_read_options, as_overrides
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe run --out runs/demo                        the demo on the default model
  adapterprobe run --model ./my-model --out runs/mine     the same on your model
  adapterprobe run --set data.train=[elements] --set data.ood=[capitals,units] --out runs/e
  adapterprobe run --data mine.csv --group city --ood capitals --out runs/mine   your own file
  adapterprobe run my.yaml --set seeds=[0,1,2,3,4] --out runs/five
  adapterprobe run --grid adapter.kind=[lora,ia3] --grid adapter.objective=[truth,lie] --out runs/grid
  adapterprobe run --transfer capitals,continents,elements --out runs/transfer     each trained on, all judged
  adapterprobe run universal --relations 1,2,5,10,20 --out runs/curve     how many kinds of question are worth collecting
  adapterprobe run --keys                                 every key with its meaning

A run that was stopped goes on with the same command; a finished one returns at once."""


def add(commands) -> None:
    parser = commands.add_parser(
        "run",
        help="train adapters and probes, compare them, write a report",
        description="Compare a model's own answer, an adapter's, and probes with the adapter off and on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", nargs="?", help="YAML file or name of a preset (default: demo)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key (repeatable)")
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="output folder (default: runs/demo)")
    parser.add_argument(
        "--data", action="append", metavar="D", help=f"data set to train and test on: {DATA_HELP} (repeatable)"
    )
    parser.add_argument(
        "--ood", action="append", metavar="D", help="data set that is only judged on; `none` for none (repeatable)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="one training seed instead of the configuration's")
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="FILE.py",
        help="run a Python file first, which registers a probe of your own (repeatable; see examples/own_probe.py)",
    )
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=[A,B]",
        help="a run for each value, and for each combination of several such keys, with one report (repeatable)",
    )
    parser.add_argument(
        "--transfer", metavar="A,B,C", help="a run trained on each of these data sets and judged on all the others"
    )
    parser.add_argument(
        "--leave-one-out", metavar="A,B,C", help="a run judged on each of these data sets, trained on all the others"
    )
    parser.add_argument(
        "--relations",
        metavar="1,2,5",
        help="runs trained on so many of the configuration's data sets, drawn by chance, at equal labels: how AUROC on what is new grows "
        "with their number",
    )
    parser.add_argument("--draws", type=int, metavar="N", help="of --relations: draws of each number (default: 3)")
    parser.add_argument(
        "--labels",
        type=int,
        metavar="N",
        help="of --relations: labelled examples that adapters and probes learn from in each run (default: as many as half of the data sets "
        "have by themselves, and two facts of each in every split at least)",
    )
    parser.add_argument(
        "--on",
        choices=["ray"],
        help="where the runs of --grid, --transfer, --leave-one-out and --relations are made: several at a time on Ray, on this machine or at "
        "RAY_ADDRESS (default: here, one after the other)",
    )
    parser.add_argument("--keys", action="store_true", help="list every configuration key and stop")
    add_model_options(parser)
    add_read_options(parser)
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> int | None:
    from adapterprobe.config_files import keys_help, read_config
    from adapterprobe.errors import ConfigError
    from adapterprobe.plugins import import_file

    if args.keys:
        echo(keys_help())
        return None
    for path in args.modules:
        import_file(path)
    overrides = as_overrides(args) + args.set
    if args.seed is not None:
        overrides.append(f"seeds=[{args.seed}]")
    named = [args.transfer, args.leave_one_out]
    relations = counts_of(args.relations, args)
    if args.grid or any(named) or relations:
        from adapterprobe.pipeline.sweep import combinations, run_grid

        transfer, leave_out = ([part for part in (text or "").split(",") if part] for text in named)
        cells = combinations(
            args.config,
            overrides,
            args.grid,
            transfer,
            leave_out,
            args.trust_remote_code,
            relations=relations,
            draws=3 if args.draws is None else args.draws,
            labels=args.labels,
        )
        report, failed = run_grid(cells, args.out, _where(args))
        echo((report.parent / "report.md").read_text("utf-8").split("\n\n")[1])
        echo(f"\nreport: {report}")
        return 2 if failed else None
    if args.on:
        raise ConfigError(
            f"--on {args.on} shares out the runs of a sweep, and this is one run; give --grid, --transfer, --leave-one-out or --relations, or "
            "leave it out"
        )
    config = read_config(args.config, overrides, args.trust_remote_code)
    from adapterprobe.pipeline import run

    echo(closing(run(config, args.out)))
    return None


def _where(args: argparse.Namespace):
    """How the runs of a sweep are made."""
    if args.on is None:
        from adapterprobe.pipeline.sweep import run_in_turn

        return run_in_turn
    from adapterprobe.integrations.ray_cells import run_on_ray
    from adapterprobe.integrations.ray_cluster import check_ray

    check_ray()
    return functools.partial(run_on_ray, modules=args.modules)


def counts_of(text: str | None, args: argparse.Namespace) -> list[int]:
    """The numbers of --relations.

    Raises:
        ConfigError: not numbers with commas, or options of it without it.
    """
    from adapterprobe.errors import ConfigError

    if text is None:
        if args.draws is not None or args.labels is not None:
            raise ConfigError("--draws and --labels are about --relations; give it too, for example --relations 1,2,5")
        return []
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--relations expects numbers with commas between them, got '{text}'") from None


def closing(finished) -> str:
    """What a terminal shows at the end: the headline, the verdicts, and where the report is."""
    from adapterprobe.report.headline import headline
    from adapterprobe.report.run_reader import read_run
    from adapterprobe.report.summary import gap

    gathered = read_run(finished.folder)
    lines = ["", headline(gathered), ""]
    for verdict in gathered.verdicts:
        lines.append(
            f"  {verdict['verdict']:<10} {verdict['hypothesis']}  ({gap(verdict)}, adjusted p {verdict['p_adjusted']:.3f})"
        )
    return "\n".join([*lines, "", f"report: {finished.report}"])
