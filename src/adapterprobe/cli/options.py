"""Options that several commands share."""

from __future__ import annotations

import argparse

MODEL_HELP = "hub id, local folder or GGUF file (default: SmolLM2-135M-Instruct out of its package)"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="M", help=MODEL_HELP)
    parser.add_argument("--device", metavar="D", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--dtype", metavar="T", help="auto, bf16, fp16, fp32 (default: auto, bf16 where it is fast)")


def as_overrides(args: argparse.Namespace) -> list[str]:
    """Command-line options as configuration overrides."""
    pairs = [("model.name", args.model), ("model.device", args.device), ("model.dtype", args.dtype)]
    return [f"{key}={value}" for key, value in pairs if value is not None]
