"""Seeds and mutators for `test_fuzz`: inputs that were good once, a little or much changed."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

NASTY = [
    "", " ", "\x00", "\x1b[31m", "\u202e", "\ufeff", "\ud800", "null", "nan", "NaN", "Infinity", "-0", "1e999", "1" * 400, "9" * 5000, "-1", "true", "[]", "{}",
    "[" * 2000, "{" * 2000, '"', "'", "`", "\\", "%s", "{0}", "{{ 7*7 }}", "{% for a in range(9) %}", "../../etc/passwd", "/dev/zero", "~nouser/x", "hub:a/b",
    "*a", "&a [*a]", "!!python/object:os.system", "é" * 300, "東京", "A" * 20_000, "\n\n\n", "\t\t", ",,,", ";;;", "|", "0x10", "1_000", "12:30", "2024-13-45",
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few random changes of bytes: flipped, cut, doubled, moved, replaced by something nasty."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        at = rng.randrange(len(out) + 1)
        to = min(len(out), at + rng.choice([1, 2, 5, 20, 200]))
        kind = rng.randrange(7)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at:to]
        elif kind == 2:
            out[at:at] = out[at:to] * rng.choice([1, 2, 50])
        elif kind == 3:
            out[at:to] = rng.choice(NASTY).encode("utf-8", "surrogatepass")
        elif kind == 4:
            out[at:at] = rng.choice(NASTY).encode("utf-8", "surrogatepass")
        elif kind == 5:
            out[at:] = b""
        else:
            out[at:to] = bytes(rng.randrange(256) for _ in range(to - at))
    return bytes(out)


def odd(value: object, rng: random.Random) -> object:
    """A JSON-able value with some part replaced by something of another kind."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        changed = dict(value)
        action = rng.randrange(4)
        if action == 0:
            del changed[key]
        elif action == 1:
            changed[rng.choice(NASTY)] = changed[key]
        else:
            changed[key] = odd(changed[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [odd(part, rng) if i == at else part for i, part in enumerate(value)]
    return rng.choice(
        [None, True, 0, -1, 10**30, 1.5, 1e308, [], {}, [[]], {"a": []}, rng.choice(NASTY), [rng.choice(NASTY)]]
    )


SETTINGS = [
    "adapter.rank", "adapter.layers", "adapter.modules", "adapter.kind", "adapter.options", "adapter.lr", "data.train", "data.ood", "data.shares", "data.read.columns",
    "data.read.group", "data.read.max_rows", "data.form", "data.wrong", "elicit.conditions", "elicit.format", "elicit.templates", "elicit.shots", "elicit.system", "select.layers",
    "select.strengths", "select.folds", "select.curve", "probes", "evaluate.hypotheses", "evaluate.probe", "evaluate.resamples", "seeds", "model.name", "model.dtype", "model.device",
    "name", "", "a.b.c", "adapter", "data.read_by_name",
]  # fmt: skip
VALUES = [
    "1", "[]", "{}", "null", "[a]", "{a: b}", "1e-3", "last:4", "last:-1", "0-99", "33%-83%", "q", "[q,v]", "lora", "(a+)+$", "[logistic]", "[{probe: mlp, params: {hidden: -1}}]",
    "capitals", "[capitals,capitals]", "chat", "chat:a=b", "plain", "{statement}", "['{statement}']", "cpu", "fp32", "fp8", "[truth]", "[0,0]", "[-1]", "adapter+probe > base on test",
    "['x > y']", ".inf", ".nan", "yes", "2024-01-01",
]  # fmt: skip


class Fuzz:
    """Makes command lines out of good inputs."""

    def __init__(self, base: Path, model: Path, run: Path) -> None:
        self.base, self.model, self.run = base, model, run
        claims = [
            {"statement": f"The stone {w}{i} is {c}", "label": int(c == "blue"), "thing": f"{w}{i}"}
            for i in range(12)
            for w in "ab"
            for c in ("blue", "red")
        ]
        asked = [{"question": f"Which is {i}?", "choices": ["a", "b", "c"], "answer": i % 3} for i in range(30)]
        chats = [
            {
                "messages": [{"role": "user", "content": f"Is it {i}?"}],
                "reply": "It is.",
                "label": ["honest", "deceptive"][i % 2],
            }
            for i in range(30)
        ]
        self.rows = {"claims": claims, "asked": asked, "chats": chats}
        self.config = {
            "model": {"name": str(model), "dtype": "fp32"}, "data": {"train": ["capitals"], "ood": ["elements"], "max_groups": 70, "min_groups": 4},
            "elicit": {"shots": 2, "demo_sets": 1}, "adapter": {"layers": "1-3", "rank": 4, "options": {"lora_dropout": 0.1}}, "probes": ["logistic", {"probe": "mlp", "params": {"alpha": 0.1}}], "seeds": [0],
        }  # fmt: skip
        self.jinja = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}Answer:"
        self.count = 0
        self.makers: list[Callable[[random.Random, Path], list[str]]] = [
            self.data_file, self.data_file, self.data_file, self.yaml, self.yaml, self.settings, self.template, self.adapter, self.probe, self.run_folder, self.score_rows, self.paths,
        ]  # fmt: skip

    def make(self, rng: random.Random) -> tuple[list[str], Path]:
        """(arguments of the command line, a folder of its own)."""
        self.count += 1
        folder = self.base / f"f{self.count}"
        folder.mkdir()
        return rng.choice(self.makers)(rng, folder), folder

    def written(self, rng: random.Random, folder: Path) -> Path:
        rows = self.rows[rng.choice(list(self.rows))]
        kind = rng.choice([".jsonl", ".csv", ".tsv", ".parquet"])
        path = folder / f"x{kind}"
        if kind == ".jsonl":
            lines = [json.dumps(odd(row, rng) if rng.random() < 0.05 else row) for row in rows]
            data = "\n".join(lines).encode("utf-8", "surrogatepass")
        elif kind == ".parquet":
            import pandas as pd

            pd.DataFrame(rows).to_parquet(path)
            data = path.read_bytes()
        else:
            sign = "," if kind == ".csv" else "\t"
            flat = self.rows["claims"]
            data = "\n".join([sign.join(flat[0]), *(sign.join(map(str, row.values())) for row in flat)]).encode()
        path.write_bytes(mutated(data, rng) if rng.random() < 0.8 else data)
        return path

    def data_file(self, rng, folder):
        path = self.written(rng, folder)
        more = rng.choice(
            [
                [],
                ["--group", "thing"],
                ["--column", "statement=label"],
                ["--skip-bad", "3"],
                ["--exact"],
                ["--max-chars", "20"],
                ["--drop-contradictions"],
            ]
        )
        return rng.choice(
            [["data", "check", str(path), "--no-model", *more], ["data", "show", str(path), "--no-model", *more]]
        )

    def yaml(self, rng, folder):
        import yaml

        content = odd(self.config, rng) if rng.random() < 0.6 else self.config
        try:
            data = yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")
        except (yaml.YAMLError, ValueError):
            data = json.dumps(content).encode()
        (folder / "c.yaml").write_bytes(mutated(data, rng) if rng.random() < 0.6 else data)
        return ["run", str(folder / "c.yaml"), "--out", str(folder / "o"), *self.stop]

    stop = ("--set", "probes=[nosuchprobe]")
    """Ends a run that nothing else is wrong with, after its configuration, before any work."""

    def settings(self, rng, folder):
        argv = ["run", "--model", str(self.model), "--out", str(folder / "o")]
        for _ in range(rng.choice([1, 1, 2])):
            value = rng.choice([*VALUES, *NASTY])
            argv += ["--set", f"{rng.choice(SETTINGS)}={value}"]
        return [*argv, *self.stop]

    def template(self, rng, folder):
        data = self.jinja.encode()
        extra = rng.choice(
            [
                "",
                "{{ 'a' * 999999 }}",
                "{{ messages[9].x }}",
                "{{ ''.__class__ }}",
                "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
                "{{ range(99999)|join }}",
            ]
        )
        (folder / "f.jinja").write_bytes(mutated(data, rng) + extra.encode())
        return ["data", "show", "capitals", "--no-model", "--format", str(folder / "f.jinja"), "--limit", "1"]

    def adapter(self, rng, folder):
        target = folder / "a"
        shutil.copytree(self.run / "adapter", target)
        if rng.random() < 0.7:
            (target / "made_for.json").unlink()
        path = rng.choice(sorted(target.iterdir()))
        if path.suffix == ".json" and rng.random() < 0.7:
            path.write_text(json.dumps(odd(json.loads(path.read_text()), rng)))
        else:
            path.write_bytes(mutated(path.read_bytes(), rng))
        return [
            "extract",
            "--model",
            str(self.model),
            "--dtype",
            "fp32",
            "--data",
            "units",
            "--shots",
            "0",
            "--limit",
            "2",
            "--adapter",
            str(target),
            "--out",
            str(folder / "s"),
        ]

    def _copy(self, folder: Path, sealed: bool) -> Path:
        target = folder / "r"
        shutil.copytree(self.run, target, ignore=shutil.ignore_patterns("figures", "report.*", "curves"))
        if not sealed:
            mark = json.loads((target / "run.json").read_text())
            mark.pop("checksums", None)
            (target / "run.json").write_text(json.dumps(mark))
        return target

    def _one_prompt(self, folder: Path) -> str:
        (folder / "p.jsonl").write_text('{"prompt": "Is it?"}\n')
        return str(folder / "p.jsonl")

    def probe(self, rng, folder):
        target = self._copy(folder, sealed=False)
        path = rng.choice(sorted((target / "probes").iterdir()))
        if path.suffix == ".json":
            path.write_text(json.dumps(odd(json.loads(path.read_text()), rng)))
        else:
            path.write_bytes(mutated(path.read_bytes(), rng))
        return ["score", str(target), self._one_prompt(folder)]

    def run_folder(self, rng, folder):
        target = self._copy(folder, sealed=rng.random() < 0.3)
        path = rng.choice([p for p in sorted(target.iterdir()) if p.is_file()])
        if path.suffix == ".json" and rng.random() < 0.6:
            path.write_text(json.dumps(odd(json.loads(path.read_text()), rng)))
        elif rng.random() < 0.1:
            path.unlink()
        else:
            path.write_bytes(mutated(path.read_bytes(), rng))
        return rng.choice(
            [
                ["report", str(target)],
                ["score", str(target), self._one_prompt(folder)],
                ["compare", str(target), str(self.run), "--out", str(folder / "c")],
            ]
        )

    def score_rows(self, rng, folder):
        rows = [{"statement": f"The capital of {c} is Paris", "condition": "truth"} for c in ("France", "Japan")]
        lines = [json.dumps(odd(row, rng) if rng.random() < 0.7 else row) for row in rows]
        data = "\n".join(lines).encode("utf-8", "surrogatepass")
        (folder / "p.jsonl").write_bytes(mutated(data, rng) if rng.random() < 0.5 else data)
        return ["score", str(self.run), str(folder / "p.jsonl")]

    def paths(self, rng, folder):
        path = rng.choice([*NASTY, str(folder), str(folder / "x"), f"{folder}/{rng.choice(NASTY)}"])
        out = str(folder / "o")
        return rng.choice([
            ["run", path, "--out", out], ["score", path, path], ["report", path], ["merge", path, "--out", out], ["compare", path, path], ["data", "check", path, "--no-model"],
            ["data", "check", "units", "--no-model", "--json", path], ["extract", "--data", path, "--model", str(self.model), "--out", out], ["data", "show", path, "--no-model"],
            ["extract", "--data", "units", "--model", path or "x", "--out", out], ["cache", "prune", "--kind", path], ["data", "show", "units", "--no-model", "--format", path],
            ["data", "show", "units", "--no-model", "--template", path], ["data", "show", "units", "--no-model", "--system", path],
        ])  # fmt: skip
