"""Options that several commands share."""

from __future__ import annotations

import argparse

FORMAT_HELP = (
    "plain, phi, alpaca, chatml, llama, llama3, vicuna, mistral, gemma, chat (the tokenizer's own template), or the path "
    "of a .jinja file (default: plain)"
)
SYSTEM_HELP = "system prompts that push to truth or lie: all, a name of ours, or a .yaml file of your own (repeatable)"
MODEL_HELP = "hub id, local folder or GGUF file (default: SmolLM2-135M-Instruct out of its package)"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="M", help=MODEL_HELP)
    parser.add_argument("--device", metavar="D", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--dtype", metavar="T", help="auto, bf16, fp16, fp32 (default: auto, bf16 where it is fast)")
    parser.add_argument("--quantize", choices=["8bit", "4bit"], help="load weights in 8 or 4 bits (needs bitsandbytes)")


def add_prompt_options(parser: argparse.ArgumentParser, forms: list[str]) -> None:
    """How the questions of one data set become prompts."""
    parser.add_argument("--form", default="question", choices=forms)
    parser.add_argument("--shots", type=int, default=4, metavar="N", help="demonstrations in a prompt (default: 4)")
    parser.add_argument("--format", default="plain", metavar="F", help=FORMAT_HELP)
    parser.add_argument("--system", action="append", metavar="S", help=SYSTEM_HELP)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="data seed (default: 0)")


def as_overrides(args: argparse.Namespace) -> list[str]:
    """Command-line options as configuration overrides."""
    pairs = [
        ("model.name", args.model),
        ("model.device", args.device),
        ("model.dtype", args.dtype),
        ("model.quantize", args.quantize),
    ]
    return [f"{key}={value}" for key, value in pairs if value is not None]


def one_or_several(given: list[str] | None) -> str | tuple[str, ...] | None:
    """A repeatable option: `all` or a file alone, or names."""
    if given is None or (len(given) == 1 and (given[0] == "all" or given[0].endswith((".yaml", ".yml")))):
        return given[0] if given else None
    return tuple(given)


def model_arguments(args: argparse.Namespace) -> dict:
    """Command-line options as arguments of `load_model`."""
    return {
        "name": args.model,
        "device": args.device or "auto",
        "dtype": args.dtype or "auto",
        "quantize": args.quantize,
    }
