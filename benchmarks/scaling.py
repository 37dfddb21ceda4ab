"""(e) Time and peak memory at 1, 2, 4 and 8 times the prompts, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from benchmarks.workload import Row

BASE = 500
CODE = """
import json, resource, sys, time
from adapterprobe.engine import Engine
from adapterprobe.activations import record
from benchmarks.workload import few_shot, model
count = int(sys.argv[1])
lm = model()
encoded = few_shot(count)
engine = Engine(lm.model, lm.structure)
record(engine, encoded.subset(range(64)), "warm", list(range(31)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
states = record(engine, encoded, "scaling", list(range(31)))
seconds = time.perf_counter() - start
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = sum(p.stat().st_size for p in states.folder.iterdir())
print(json.dumps([len(encoded), seconds, before / 2**20, after / 2**20, size / 2**20]))
"""


def run() -> list[Row]:
    found = []
    for times in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as scratch:
            # The model comes from the usual cache; states go to one of their own.
            from adapterprobe.cache import cache_root

            for kind in ("models", "sources"):
                os.symlink(cache_root() / kind, os.path.join(scratch, kind))
            done = subprocess.run(
                [sys.executable, "-c", CODE, str(BASE * times)],
                env=os.environ | {"ADAPTERPROBE_CACHE": scratch},
                capture_output=True,
                text=True,
                check=True,
            )
        found.append(json.loads(done.stdout))
    first, last = found[0], found[-1]
    slope = (last[1] / last[0]) / (first[1] / first[0])
    growth = last[3] - first[3]
    table = "; ".join(
        f"{n} prompts {s:.1f} s, peak {after:.2f} GiB, store {size:.0f} MiB" for n, s, _, after, size in found
    )
    return [
        Row(
            "extraction to disk, all layers",
            f"{table}. Time a prompt at 8 times: {slope:.2f} of that at 1; peak memory {growth:+.2f} GiB",
            "linear, flat",
            slope < 1.2 and growth < 0.3,
        )
    ]
