"""`adapterprobe plan`: memory and time of a run, before it starts."""

from __future__ import annotations

import argparse
import json

from adapterprobe.cli.options import DATA_HELP, add_model_options, add_read_options, as_overrides
from adapterprobe.cli.train import adapter_overrides, add_adapter_options
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe plan                                          the demo on this machine
  adapterprobe plan log --model microsoft/phi-2 --quantize 4bit
  adapterprobe plan --train --adapter lora --layers last:8 --steps 100
  adapterprobe plan my.yaml --batch 16 --json

The model is loaded and a few passes are tried out on the run's own prompts, so a plan takes about half a minute."""


def add(commands) -> None:
    parser = commands.add_parser(
        "plan",
        help="memory and time of a run, before it starts",
        description="Say what a run (or, with --train, one training) will need: memory by part, time by stage.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", nargs="?", help="YAML file or name of a preset (default: demo; with --train: train)")
    parser.add_argument(
        "--train", action="store_true", help="one training (`adapterprobe train`) instead of a whole run"
    )
    parser.add_argument("--data", action="append", metavar="D", help=f"{DATA_HELP} (repeatable)")
    parser.add_argument("--ood", action="append", metavar="D", help="data set that is only judged on (repeatable)")
    parser.add_argument("--batch", type=int, metavar="N", help="prompts of a pass (adapter.micro_batch)")
    parser.add_argument("--length", type=int, metavar="N", help="prompts of so many tokens, instead of the run's own")
    parser.add_argument("--json", action="store_true", help="bytes and seconds as JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key (repeatable)")
    add_adapter_options(parser)
    add_model_options(parser)
    add_read_options(parser)
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from adapterprobe.config_files import read_config

    overrides = as_overrides(args) + adapter_overrides(args)
    if args.batch is not None:
        overrides.append(f"adapter.micro_batch={args.batch}")
    name = args.config or ("train" if args.train else "demo")
    config = read_config(name, overrides + args.set, args.trust_remote_code)
    if args.batch is not None and args.batch > config.adapter.batch_size:
        # A pass is a part of a step.
        config = read_config(name, [*overrides, *args.set, f"adapter.batch_size={args.batch}"], args.trust_remote_code)
    from adapterprobe.planning.plan import make_plan

    plan = make_plan(config, whole=not args.train, length=args.length)
    echo(json.dumps(plan.to_json(), indent=1) if args.json else text_of(plan))


def text_of(plan) -> str:
    """A plan as a table for terminals."""

    def gib(size: int) -> str:
        return f"{size / 2**30:7.2f} GiB"

    def clock(value: float) -> str:
        return f"{value:5.0f} s" if value < 120 else f"{value / 60:5.1f} min"

    rows = [f"memory of training, on {plan.device}"]
    rows += [f"  {name:<38}{gib(size)}" for name, size in plan.memory.items() if size]
    rows += [f"    weights on {name:<23}{gib(size)}" for name, size in plan.weights.items()]
    rows += [f"  {'peak':<38}{gib(plan.peak)}   of {gib(plan.free).strip()} that are free"]
    rows += [
        f"  passes of {plan.micro_batch} prompts (adapter.micro_batch); up to {plan.largest_micro_batch} would fit; the "
        f"longest prompt has {plan.longest} tokens"
    ]
    rows += ["disk", *(f"  {name:<38}{gib(size)}" for name, size in plan.disk.items())]
    rows += [f"time, for {plan.prompts} prompts and {plan.steps} steps a training"]
    rows += [f"  {name:<38}{clock(value)}" for name, value in plan.seconds.items()]
    rows += [f"  {'all':<38}{clock(sum(plan.seconds.values()))}"]
    if plan.peak > plan.free:
        rows.append(
            "does not fit: set adapter.micro_batch="
            f"{max(1, plan.largest_micro_batch)}, adapter.checkpoint_activations=true, or quantize the model"
        )
    return "\n".join(rows)
