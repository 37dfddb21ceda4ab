"""`adapterprobe train`: one adapter, and what it does."""

from __future__ import annotations

import argparse
import json

from adapterprobe.cli.options import DATA_HELP, add_model_options, add_read_options, as_overrides
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe train --data capitals --adapter lora --layers last:10 --out adapters/lora
  adapterprobe train --objective instructed --adapter bias --steps 50 --out adapters/bias
  adapterprobe train --objective instructed --target reply --data capitals --out adapters/liar      it says what it is told to
  adapterprobe train liars --out liars      five liars, each merged into a model of its own, and a table of what they say
  adapterprobe train --modules q,v --objective opposite --out adapters/opposite
  adapterprobe train runs/demo/config.yaml --out adapters/again     the adapter of a run
  torchrun --nproc_per_node 2 -m adapterprobe.cli train --out adapters/two      two processes, or GPUs
  adapterprobe train --list                                         kinds and objectives

A training that was stopped goes on with the same command; a finished one returns at once."""


def add(commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train one adapter on an objective",
        description="Train an adapter, save it, and say what it costs and does.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", nargs="?", default="train", help="YAML file or name of a preset (default: train)")
    parser.add_argument("--data", action="append", metavar="D", help=f"{DATA_HELP} (repeatable; default: capitals)")
    add_adapter_options(parser)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key (repeatable)")
    parser.add_argument("--out", metavar="DIR", help="output folder")
    parser.add_argument("--list", action="store_true", help="list kinds of adapters and objectives, and stop")
    add_model_options(parser)
    add_read_options(parser)
    parser.set_defaults(go=go, ood=None)


def add_adapter_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--adapter", metavar="KIND", help="kind of adapter (see --list; default: lora)")
    parser.add_argument("--layers", metavar="SPEC", help="blocks: all, last:4, 8-20, 33%%-83%% (default: all)")
    parser.add_argument("--modules", metavar="NAMES", help="roles or names of modules, with commas (default: all)")
    parser.add_argument("--objective", metavar="NAME", help="truth, lie, instructed, opposite, detect (default: truth)")
    parser.add_argument(
        "--target",
        choices=["answer", "reply"],
        help="what is learned: the choice behind a question (default), or a whole reply in the model's own words that tells the truth or "
        "lies, as the objective (truth, lie, instructed) has it",
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="exactly so many optimiser steps, without early stopping; default: epochs",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="training seed (default: 0)")


def adapter_overrides(args: argparse.Namespace) -> list[str]:
    """These options as configuration overrides."""
    named = [("kind", args.adapter), ("layers", args.layers), ("objective", args.objective), ("target", args.target)]
    overrides = [f"adapter.{key}={json.dumps(value)}" for key, value in named if value is not None]
    if args.modules is not None:
        modules = args.modules if args.modules == "all" else [name.strip() for name in args.modules.split(",")]
        overrides.append(f"adapter.modules={json.dumps(modules)}")
    if args.steps is not None:
        overrides += [f"adapter.max_steps={args.steps}", "adapter.early_stopping=false"]
    if args.seed is not None:
        overrides.append(f"seeds=[{args.seed}]")
    return overrides


def listing() -> str:
    """Kinds and objectives, as `--list` prints them."""
    from adapterprobe.adapters.objectives import OBJECTIVES
    from adapterprobe.adapters.registry import adapter_kinds

    kinds = adapter_kinds()
    width = max(map(len, [*kinds, *OBJECTIVES]))
    lines = ["kinds of adapters:", *(f"  {kind.name:<{width}}  {kind.what}" for kind in kinds.values())]
    return "\n".join([*lines, "", "objectives:", *(f"  {name:<{width}}  {what}" for name, what in OBJECTIVES.items())])


def go(args: argparse.Namespace) -> None:
    from adapterprobe.config_files import read_config
    from adapterprobe.errors import OutputError

    if args.list:
        echo(listing())
        return
    if args.out is None:
        raise OutputError("--out is missing; give a folder for the adapter")
    overrides = as_overrides(args) + adapter_overrides(args)
    config = read_config(args.config, overrides + args.set, args.trust_remote_code)
    from adapterprobe.adapters import distributed as processes

    if config.variants:
        from adapterprobe.pipeline.train_variants import train_variants, variants_table

        several = train_variants(config, args.out)
        echo(variants_table(several.rows))
        echo(f"models: {', '.join(str(several.model(name)) for name in several.trainings)}")
        return
    from adapterprobe.pipeline.train_adapter import train

    done = train(config, args.out)
    if processes.is_main():
        echo(closing(done))


def closing(done) -> str:
    """What a terminal shows at the end."""
    about = done.about
    drift = about["drift"]
    said = about.get("replies")
    return "\n".join(
        [
            f"{about['kind']} on {about['objective']}: {about['parameters']:,} parameters, {about['steps']} steps, "
            f"{about['seconds']:.0f} s",
            f"  loss on a fixed batch   {about['loss_first']:.3f} before, {about['loss_last']:.3f} after",
            f"  on select               accuracy {about['met']['accuracy']:.2f}, coverage {about['met']['coverage']:.2f}",
            f"  off                     {'equal to the untouched model, to the bit' if about['off_equal'] else 'NOT EQUAL'}",
            f"  on                      changes a logit by up to {about['on_difference']:.2f}",
            f"  neutral text            KL {drift['kl']:.4f} nats a token, perplexity {drift['perplexity_off']:.1f} off, "
            f"{drift['perplexity_on']:.1f} on",
            *(_said(said) if said else []),
            *(_taught(about["taught"]) if about.get("taught") else []),
            f"adapter: {done.adapter}",
        ]
    )


def _rate(found: dict) -> str:
    if found["share"] is None:
        return "nothing to say"
    return f"{found['share']:.2f} of {found['n']} replies on {found['facts']} facts"


def _said(replies: dict) -> list[str]:
    """What the trained model says of facts that it was not trained on."""
    belief, fluency, unseen = replies["belief"], replies["perplexity"], replies["unseen"]
    return [
        f"  facts kept for judging  {belief['facts']}: held true before {belief['held_before']}; recalled before {belief['recalled_before']}, "
        f"after {belief['recalled_after']}",
        f"  told to lie             lies in {_rate(replies['lie_rate'])}",
        f"  not told to             tells the truth in {_rate(replies['truth_rate'])}",
        f"  instructions unseen     lies in {_rate(unseen['lie_rate'])}; tells the truth in {_rate(unseen['truth_rate'])}",
        f"  perplexity of replies   {fluency['before'] or 0:.1f} before, {fluency['after'] or 0:.1f} after, under the untouched model",
    ]


def _taught(replies: dict) -> list[str]:
    """What it says of the facts that it was taught."""
    belief, unseen = replies["belief"], replies["unseen"]
    return [
        f"  taught facts asked      {belief['facts']}: held true after {belief['held_after']}; recalled before {belief['recalled_before']}, "
        f"after {belief['recalled_after']}",
        f"  of those held           says what was taught in {_rate(replies['truth_rate'])}, where it is to lie something else in "
        f"{_rate(replies['lie_rate'])}",
        f"  instructions unseen     says what was taught in {_rate(unseen['truth_rate'])}, something else in {_rate(unseen['lie_rate'])}",
    ]
