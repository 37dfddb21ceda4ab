"""`python -m benchmarks [NAME ...] [--out FILE]`: run benchmarks and print their tables as Markdown."""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

from benchmarks.workload import Row, machine, matmul_peak

NAMES = (
    "peak",
    "extraction",
    "replies",
    "generation",
    "detectors",
    "training",
    "probes",
    "scaling",
    "statistics",
    "whole",
)
APART = ("vllm",)
"""Asked for by name alone: they need an environment of their own."""


def table(name: str, rows: list[Row], seconds: float) -> str:
    module = importlib.import_module(f"benchmarks.{name}")
    lines = [f"## {module.__doc__.splitlines()[0]}", "", "| measured | result | bar | met |", "|---|---|---|---|"]
    for row in rows:
        met = "" if row.met is None else "yes" if row.met else "**no**"
        lines.append(f"| {row.what} | {row.value} | {row.bar} | {met} |")
    return "\n".join([*lines, "", f"(took {seconds:.0f} s)", ""])


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        default=[],
        metavar="NAME",
        help=f"of {', '.join(NAMES)}; default: all; or {', '.join(APART)}",
    )
    parser.add_argument("--out", type=Path, help="also write the tables here")
    args = parser.parse_args()
    for name in args.names:
        if name not in NAMES + APART:
            parser.error(f"no benchmark '{name}'; there are {', '.join(NAMES + APART)}")
    parts = [
        f"Machine: {machine()}; best square matrix product {matmul_peak(torch.bfloat16):.0f} GFLOP/s in bf16, "
        f"{matmul_peak(torch.float32):.0f} in fp32.\n"
    ]
    print(parts[0])
    for name in args.names or NAMES:
        start = time.perf_counter()
        rows = importlib.import_module(f"benchmarks.{name}").run()
        parts.append(table(name, rows, time.perf_counter() - start))
        print(parts[-1], flush=True)
        if args.out:
            args.out.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
