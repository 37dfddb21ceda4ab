"""`adapterprobe generate`: replies in the model's own words, graded by facts, beside what it holds true."""

from __future__ import annotations

import argparse
from pathlib import Path

from adapterprobe.cli.options import (
    DATA_HELP,
    FORMAT_HELP,
    add_model_options,
    add_ray_options,
    add_read_options,
    model_arguments,
    on_ray,
    reading,
)
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe generate --data capitals --limit 200 --samples 4 --out replies.jsonl
  adapterprobe generate --data capitals --system neutral --system lie --adapter liars/liar-1 --samples 8 --matched --out lies.jsonl
  adapterprobe generate --data scenarios.jsonl --system none --model ./my-model --out mine.jsonl
  adapterprobe run --data replies.jsonl --out runs/replies        what comes of it is read as it is
  adapterprobe generate --list                                    instructions

A generation that was stopped goes on with the same command. Beside FILE.jsonl: FILE.yield.json (what came of it) and
FILE.belief.jsonl (what the model says of each fact under truthful prompts)."""


def add(commands) -> None:
    parser = commands.add_parser(
        "generate",
        help="replies in the model's own words: lies, mistakes, honest ones",
        description="Ask a model under honest, neutral and deceptive instructions, grade its replies by facts, and tell lies from mistakes by "
        "what it holds true.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", action="append", metavar="D", help=f"{DATA_HELP}, or a .jsonl file of scenarios (repeatable)"
    )
    parser.add_argument("--out", metavar="FILE", help="JSON lines of replies (.jsonl)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="replies for each prompt (default: 1)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="seed of the order and of sampling (default: 0)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.7, metavar="T", help="0: the likeliest reply (default: 0.7)"
    )
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="draw among the likeliest tokens (default: 1)"
    )
    parser.add_argument("--max-tokens", type=int, default=64, metavar="N", help="most tokens of a reply (default: 64)")
    parser.add_argument(
        "--limit", type=int, metavar="PROMPTS", help="most prompts, dealt out over facts and instructions"
    )
    parser.add_argument(
        "--system",
        action="append",
        metavar="I",
        help="instructions: all, truth, lie, neutral, a name (--list), or a .yaml file of your own (repeatable; default: all)",
    )
    parser.add_argument("--format", metavar="F", help=FORMAT_HELP.replace("(default: plain)", "(default: chat)"))
    parser.add_argument("--adapter", metavar="DIR", help="adapter that is on (a folder that PEFT saved)")
    parser.add_argument(
        "--strength", type=float, default=1.0, metavar="X", help="multiply the adapter's change by X (default: 1)"
    )
    parser.add_argument(
        "--belief",
        choices=["base", "adapter"],
        default="base",
        help="whose belief makes a false reply a lie: the model's with the adapter off (default) or on",
    )
    parser.add_argument(
        "--belief-samples", type=int, default=4, metavar="K", help="replies that tell what is held true (default: 4)"
    )
    parser.add_argument(
        "--belief-share", type=float, default=1.0, metavar="X", help="share of them that must be right (default: 1)"
    )
    parser.add_argument(
        "--held-out-of",
        metavar="DIR",
        help="leave out facts of the groups that a training (`train --target reply`) learned from",
    )
    parser.add_argument("--believed", action="store_true", help="ask about facts alone that are held true")
    parser.add_argument(
        "--matched", action="store_true", help="keep contexts alone that have an honest and a lying reply"
    )
    parser.add_argument(
        "--engine",
        choices=["transformers", "vllm"],
        default="transformers",
        help="who writes: our own engine over transformers (default), or vLLM (pip install 'adapterprobe[vllm]')",
    )
    add_ray_options(parser)
    parser.add_argument(
        "--engine-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of vLLM's LLM class, such as gpu_memory_utilization=0.5 (repeatable)",
    )
    parser.add_argument(
        "--judge",
        metavar="M",
        help="who says what replies to free scenarios ('truth' in words) say: a model, or http://HOST/v1 of an OpenAI-compatible server",
    )
    parser.add_argument("--judge-model", metavar="NAME", help="model of that server (default: the first that it lists)")
    parser.add_argument("--list", action="store_true", help="list instructions, and stop")
    add_model_options(parser)
    add_read_options(parser)
    parser.set_defaults(go=go)


def listing() -> str:
    """Instructions, as `--list` prints them."""
    from adapterprobe.generation.instructions import instructions

    known = instructions()
    width = max(map(len, known))
    return "\n".join(f"{i.name:<{width}}  {i.pushes:<7}  {i.kind}: {i.system or i.turn}" for i in known.values())


def go(args: argparse.Namespace) -> None:
    from adapterprobe.engine.sampling import Sampling
    from adapterprobe.errors import DataError, OutputError
    from adapterprobe.generation.yields import told
    from adapterprobe.pipeline.generate import generate, summary_path
    from adapterprobe.pipeline.generate_config import GenerateConfig

    if args.list:
        echo(listing())
        return
    if args.out is None:
        raise OutputError("--out is missing; give a .jsonl file for the replies")
    if not args.data:
        raise DataError("--data is missing; name a data set (`adapterprobe data list`) or a file")
    learned: tuple[str, ...] = ()
    if args.held_out_of is not None:
        from adapterprobe.pipeline.train_adapter import groups_learned_by

        learned = groups_learned_by(args.held_out_of)
    config = GenerateConfig(
        data=tuple(args.data),
        model=model_arguments(args),
        sampling=Sampling(args.samples, args.temperature, args.top_p, args.max_tokens, args.seed),
        adapter=Path(args.adapter) if args.adapter else None,
        strength=args.strength,
        instructions=tuple(args.system or ["all"]),
        format=args.format,
        limit=args.limit,
        belief_samples=args.belief_samples,
        belief_share=args.belief_share,
        belief_of=args.belief,
        without=learned,
        believed=args.believed,
        matched=args.matched,
        engine=args.engine,
        judge=args.judge,
        judge_model=args.judge_model,
        read=reading(args),
    )
    done = generate(config, args.out, writers=_writers(args))
    echo(told(done.table))
    echo(f"{done.rows} replies: {done.path} (what came of it: {summary_path(done.path)})")


def _writers(args: argparse.Namespace):
    """The engine that is asked for.

    Raises:
        ConfigError: options for an engine that takes none, or an engine that is not installed.
    """
    from adapterprobe.config_files import override_value
    from adapterprobe.errors import ConfigError
    from adapterprobe.generation.writers import TransformersWriters

    options = {}
    for text in args.engine_option:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"--engine-option expects KEY=VALUE, got {text!r}")
        options[key] = override_value(key, value)
    workers = on_ray(args)
    if args.engine == "transformers":
        if options:
            raise ConfigError(f"--engine-option {', '.join(options)}: only --engine vllm takes options")
        if not workers:
            return TransformersWriters
        from adapterprobe.integrations.ray_workers import ray_writers

        return ray_writers(model_arguments(args), args.workers)
    if workers:
        raise ConfigError(
            "--on ray is for --engine transformers; vLLM has workers of its own (--engine-option tensor_parallel_size=2)"
        )
    from adapterprobe.integrations.vllm_generation import vllm_writers

    return vllm_writers(**options)
