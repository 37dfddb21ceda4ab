"""A finished run's detectors on new rows."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from adapterprobe.cli import main
from adapterprobe.detectors import score_file as module
from adapterprobe.evaluate.conformal import answers


@pytest.fixture(autouse=True)
def _cache(finished_run, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished_run / "cache"))


def test_prompts_of_the_run_get_the_scores_of_the_run(finished_run, tmp_path):
    sent = pd.read_parquet(finished_run / "out" / "prompts.parquet").query("split == 'test'")
    sent[["text", "condition", "prompt_id"]].rename(columns={"text": "prompt"}).to_parquet(tmp_path / "p.parquet")
    out = tmp_path / "o.parquet"
    assert main(["score", str(finished_run / "out"), str(tmp_path / "p.parquet"), "--out", str(out)]) == 0
    scored = pd.read_parquet(out)
    assert len(scored) == len(sent) and list(scored["prompt_id"]) == list(sent["prompt_id"])
    frame = pd.read_parquet(finished_run / "out" / "predictions.parquet").query("axis == 'truth' and seed == 0")
    results = json.loads((finished_run / "out" / "results.json").read_text())
    for (arm, probe), rows in frame.groupby(["arm", "probe"], dropna=False):
        name = arm if pd.isna(probe) else f"{arm} ({probe})"
        mine = [row[name] for row in scored["detectors"]]
        expected = rows.set_index("prompt_id").loc[sent["prompt_id"], "score"].to_numpy()
        np.testing.assert_allclose([m["score"] for m in mine], expected, atol=2e-5)
        threshold = rows["threshold"].iloc[0]
        if np.isfinite(threshold):
            far = np.abs(expected - threshold) > 1e-4
            assert (np.array([m["above"] for m in mine])[far] == (expected > threshold)[far]).all()
        rate = next(
            r for r in results
            if r["metric"] == "false_positive_rate" and r["arm"] == arm and (r["probe"] or None) == (None if pd.isna(probe) else probe)
            and r["split"] == "test" and r["condition"] == "mean" and r["filter"] == "all"
        )  # fmt: skip
        assert mine[0]["false_positive_rate"] == {k: rate[k] for k in ("estimate", "low", "high")}
    # These are the very prompts of reference: with themselves among their neighbours none is unlike them.
    assert not scored["unlike"].any()


def test_statements_are_put_in_the_runs_own_way(finished_run, tmp_path, capsys):
    sent = pd.read_parquet(finished_run / "out" / "prompts.parquet")
    sent = sent[(sent["split"] == "test") & (sent["template"] == "accurate") & (sent["condition"] == "truth")]
    statements = sent["turn"].str.extract(r'^"(.*)\." Is this')[0]
    (tmp_path / "s.csv").write_text(statements.rename("statement").to_csv(index=False))
    assert main(["score", str(finished_run / "out"), str(tmp_path / "s.csv")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    frame = pd.read_parquet(finished_run / "out" / "predictions.parquet")
    frame = frame.query("axis == 'truth' and seed == 0 and arm == 'adapter'").set_index("prompt_id")
    np.testing.assert_allclose(
        [line["detectors"]["adapter"]["score"] for line in lines], frame.loc[sent["prompt_id"], "score"], atol=2e-5
    )


def test_what_is_unlike_is_called_so(finished_run, tmp_path):
    odd = {"prompt": "0x7f 0x45 0x4c 0x46 " * 15}
    (tmp_path / "p.jsonl").write_text(json.dumps(odd))
    assert (
        main(["score", str(finished_run / "out"), str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "o.jsonl")]) == 0
    )
    (line,) = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
    assert line["prompt"] == odd["prompt"] and line["unlike"] and line["novelty_p"] < 0.02


def test_a_stopped_scoring_goes_on_where_it_was(finished_run, tmp_path, monkeypatch):
    rows = [{"statement": f"{n} is a number", "n": n} for n in range(20)]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(module, "PIECE", 6)
    command = ["score", str(finished_run / "out"), str(tmp_path / "s.jsonl"), "--out"]
    assert main([*command, str(tmp_path / "whole.jsonl")]) == 0
    from adapterprobe.detectors.scorer import Scorer

    pieces, score = [], Scorer.score

    def stops(self, prompts):
        if len(pieces) == 2:
            raise KeyboardInterrupt
        pieces.append(len(prompts))
        return score(self, prompts)

    monkeypatch.setattr(Scorer, "score", stops)
    assert main([*command, str(tmp_path / "two.jsonl")]) == 130
    part = tmp_path / "two.jsonl.part"
    assert len(part.read_text().splitlines()) == 12
    part.write_text(part.read_text() + '{"torn')
    pieces.clear()
    monkeypatch.setattr(Scorer, "score", lambda self, prompts: pieces.append(len(prompts)) or score(self, prompts))
    assert main([*command, str(tmp_path / "two.jsonl")]) == 0
    assert pieces == [6, 2] and not part.exists()
    first, second = (
        [json.loads(line) for line in (tmp_path / f"{n}.jsonl").read_text().splitlines()] for n in ("whole", "two")
    )
    assert [line["n"] for line in second] == list(range(20))
    for a, b in zip(first, second, strict=True):
        for name, told in a["detectors"].items():
            assert told["score"] == pytest.approx(b["detectors"][name]["score"], abs=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"claim": "x"}', "expected 'prompt'"),
        ('{"statement": ""}', "line 1: 'statement' is empty"),
        ('{"prompt": "a"}\nnot json', "line 2"),
        ('{"prompt": "a", "condition": "neutral"}', "line 1: 'condition' is 'neutral', expected one of truth, lie"),
    ],
)
def test_bad_rows(finished_run, tmp_path, capsys, content, message):
    (tmp_path / "s.jsonl").write_text(content)
    assert main(["score", str(finished_run / "out"), str(tmp_path / "s.jsonl")]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1


def test_bad_runs(finished_run, tmp_path, capsys):
    (tmp_path / "s.jsonl").write_text('{"prompt": "a"}')
    assert main(["score", str(tmp_path / "none"), str(tmp_path / "s.jsonl")]) == 2
    assert "is not a finished run" in capsys.readouterr().err
    shutil.copytree(finished_run / "out", tmp_path / "out")
    config = tmp_path / "out" / "config.yaml"
    text = config.read_text()
    start = text.index("model:", text.index("hashes:"))
    config.write_text(text[:start] + "model: other\n" + text[text.index("\n", start) + 1 :])
    assert main(["score", str(tmp_path / "out"), str(tmp_path / "s.jsonl")]) == 2
    assert "config.yaml has" in capsys.readouterr().err
    # Whoever writes the record anew as well is found out by the model itself.
    mark = tmp_path / "out" / "run.json"
    content = json.loads(mark.read_text())
    content["checksums"].pop("config.yaml")
    mark.write_text(json.dumps(content))
    assert main(["score", str(tmp_path / "out"), str(tmp_path / "s.jsonl")]) == 2
    assert "the run was made with other" in capsys.readouterr().err


def test_answers_hold_what_they_promise():
    """New groups of the same kind: the set holds the truth as often as promised, and fewer calibrating groups promise less."""
    rng = np.random.default_rng(0)

    def rows(groups):
        label = np.tile([0, 1], groups)
        return pd.DataFrame(
            {"group": np.repeat([f"g{i}" for i in range(groups)], 2), "label": label, "score": 1 / (1 + np.exp(-(rng.normal(size=2 * groups) + label - 0.5)))}
        )  # fmt: skip

    held = []
    for _ in range(60):
        new = rows(50)
        said, coverage, how = answers(rows(60), new["score"].to_numpy(), 0.8)
        assert how == "class-conditional" and coverage == 0.8
        right = np.where(new["label"] == 1, "truth", "lie")
        # "don't know" stands for both or for none; at this sharpness for both.
        held.append(np.mean([a in (r, "don't know") for a, r in zip(said, right, strict=True)]))
    assert 0.77 < np.mean(held) < 0.9
    said, _, reason = answers(rows(8), np.array([0.5]), 0.95)
    assert said is None and "needed" in reason


def test_columns_that_begin_empty_and_mixed_numbers(finished_run, tmp_path, monkeypatch):
    rows = [
        {"statement": f"{n} is a number", "note": None if n < 7 else "late", "n": n if n < 9 else n / 2}
        for n in range(14)
    ]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(module, "PIECE", 5)
    out = tmp_path / "o.parquet"
    command = ["score", str(finished_run / "out"), str(tmp_path / "s.jsonl"), "--out", str(out)]
    assert main(command) == 0
    found = pd.read_parquet(out)
    assert list(found["note"].fillna("")) == [row["note"] or "" for row in rows] and list(found["n"]) == [
        row["n"] for row in rows
    ]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("o.")] == ["o.parquet"]


def test_nothing_is_overwritten(finished_run, tmp_path, capsys):
    (tmp_path / "s.jsonl").write_text('{"statement": "one is a number"}')
    argv = ["score", str(finished_run / "out"), str(tmp_path / "s.jsonl"), "--out", str(tmp_path / "s.jsonl")]
    assert main(argv) == 2
    assert "is there already" in capsys.readouterr().err
    (tmp_path / "m.jsonl").write_text('{"statement": "a is b", "n": 1}\n{"statement": "b is a", "n": "one"}')
    assert main([*argv[:2], str(tmp_path / "m.jsonl"), "--out", str(tmp_path / "m.parquet")]) == 2
    error = capsys.readouterr().err.strip()
    assert "values of several types" in error and len(error.splitlines()) == 1
    (tmp_path / "e.jsonl").write_text("")
    assert main([*argv[:2], str(tmp_path / "e.jsonl"), "--out", str(tmp_path / "e.parquet")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_columns_of_numbers_are_no_answers(finished_run, tmp_path, capsys):
    """A table of votes has columns `positive` and `negative` too."""
    rows = [{"statement": f"The capital of {c} is Paris"} for c in ("France", "Japan", "Peru")]
    for name, more in (
        ("plain", {}),
        ("votes", {"positive": "3", "negative": "6"}),
        ("ints", {"positive": 3, "negative": 0}),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row | more) + "\n" for row in rows))
        argv = [
            "score",
            str(finished_run / "out"),
            str(tmp_path / f"{name}.jsonl"),
            "--out",
            str(tmp_path / f"{name}.out.jsonl"),
        ]
        assert main(argv) == 0
    assert capsys.readouterr().err.count("do not hold words in every row") == 2
    plain, votes, ints = (
        [json.loads(line)["detectors"] for line in (tmp_path / f"{n}.out.jsonl").read_text().splitlines()]
        for n in ("plain", "votes", "ints")
    )
    assert plain == votes == ints


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "ragged.jsonl",
            b'{"statement": "a", "id": 1}\n{"id": 2}\n{"statement": "b"}\n{"id": 4}\n',
            ["2 of its rows", "lines 2, 4: 'statement' is missing"],
        ),
        ("late.jsonl", b'{"id": 0}\n{"statement": "a"}\n', ["line 1: 'statement' is missing"]),
        ("latin.csv", "statement\nThe café\nfine\nOrlé\n".encode("latin-1"), ["lines 2, 4: 'statement' is not UTF-8"]),
        ("prompts.csv", "prompt\nOrlé?\n".encode("latin-1"), ["line 2: 'prompt' is not UTF-8"]),
        ("other.csv", "prompt,note\na?,b\nb?,Orlé\n".encode("latin-1"), ["line 3: 'note' is not UTF-8"]),
        ("cells.csv", b"prompt,note\na?\nb?,c,d\n", ["line 2: has 1 cells", "line 3: has 3 cells"]),
        ("surrogate.jsonl", b'{"prompt": "\\ud800"}\n', ["line 1: 'prompt' is not UTF-8"]),
    ],
)
def test_all_broken_rows_are_told_before_any_is_scored(
    finished_run, tmp_path, capsys, monkeypatch, name, content, words
):
    from adapterprobe.detectors import score_file

    def refuse(*args, **kwargs):
        raise AssertionError("no model is loaded for a file that is broken")

    monkeypatch.setattr(score_file, "Scorer", refuse)
    (tmp_path / name).write_bytes(content)
    assert main(["score", str(finished_run / "out"), str(tmp_path / name), "--out", str(tmp_path / "o.parquet")]) == 2
    error = capsys.readouterr().err.strip()
    assert all(word in error for word in words) and len(error.splitlines()) == 1
    assert not (tmp_path / "o.parquet").exists() and not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_stopped_after_the_file_was_whole(finished_run, tmp_path, capsys, kind):
    """Between the last two steps: the marks are still there. The same command takes them away and has nothing to do."""
    (tmp_path / "p.jsonl").write_text('{"prompt": "Is it?"}\n{"prompt": "Was it?"}\n')
    out = tmp_path / f"o.{kind}"
    argv = ["score", str(finished_run / "out"), str(tmp_path / "p.jsonl"), "--out", str(out)]
    assert main(argv) == 0
    before = out.read_bytes()
    out.with_name(out.name + ".part.json").write_text("{}")
    assert main(argv) == 0
    assert "is finished" in capsys.readouterr().err and out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.glob("o.*")) == [out.name]
    assert main(argv) == 2 and "is there already" in capsys.readouterr().err


def test_files_of_different_runs_are_told_apart(finished_run, tmp_path, capsys):
    """Found by the fuzzer: scores of a probe that the configuration does not have."""
    run = tmp_path / "r"
    shutil.copytree(finished_run / "out", run)
    mark = json.loads((run / "run.json").read_text())
    mark.pop("checksums")
    (run / "run.json").write_text(json.dumps(mark))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("- mass_mean", "- ridge"))
    (tmp_path / "s.csv").write_text("statement\nParis is the capital of France\n")
    assert main(["score", str(run), str(tmp_path / "s.csv")]) == 2
    assert "has scores of the probe 'mass_mean', config.yaml has only logistic, ridge" in capsys.readouterr().err
