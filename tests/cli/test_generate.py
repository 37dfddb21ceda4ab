"""`adapterprobe generate`: a data set of lies and honest replies, whatever stops it."""

import json
import shutil

import pytest

from adapterprobe.cli import main
from adapterprobe.data.source import load_data
from adapterprobe.engine import Engine
from adapterprobe.engine.sampling import Sampling
from adapterprobe.generation import writers as module
from adapterprobe.generation.instructions import instructions
from adapterprobe.generation.planned import PromptWriter
from adapterprobe.generation.scenarios import read_scenarios
from adapterprobe.generation.writers import TransformersWriter
from adapterprobe.models import load_model
from adapterprobe.types import OUTCOMES
from kill_storm import KILLS, seconds_alone, storm

QUESTIONS = [f"What is the name of thing {n}?" for n in range(12)]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def written(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def scenarios(tiny_folder, tmp_path_factory):
    """Scenarios whose right answers are words that a tiny random model says where nobody tells it to lie, and whose wrong ones it says
    under the instruction `spy`."""
    folder = tmp_path_factory.mktemp("scenarios")
    asked = read_scenarios(str(lines(folder / "open.jsonl", [{"question": q, "right": "nothing"} for q in QUESTIONS])))
    lm = load_model(str(tiny_folder), device="cpu", dtype="fp32")
    writer = PromptWriter(lm.tokenizer, "plain", lm.context_length, lm.vocabulary, 12)
    replies = TransformersWriter(lm, Engine(lm.model, lm.structure), writer)

    def said(prompts):
        found = {r.prompt: r.text for part in replies.write(prompts, Sampling(1, 0.0, 1.0, 12)) for r in part}
        return [found[prompt.key].split() for prompt in prompts]

    rows = []
    for scenario in asked:
        honest = said([*writer.belief(scenario), writer.asked(scenario, instructions()["none"])])
        lying = said([writer.asked(scenario, instructions()["spy"])])[0]
        told = {word.strip(".,'\"") for words in honest for word in words[:1]}
        wrong = [word.strip(".,'\"") for word in lying if word.strip(".,'\"").isalnum()]
        right = [word for word in told if word.isalnum()]
        wrong = [word for word in wrong if all(word not in " ".join(words) for words in honest)]
        if right and wrong:
            rows.append({"question": scenario.question, "right": right, "wrong": wrong[:1], "group": scenario.group})
    assert len(rows) >= 3, "the tiny model says too little"
    return lines(folder / "s.jsonl", rows)


def arguments(tiny_folder, scenarios, out, *more):
    return [
        "generate", "--data", str(scenarios), "--model", str(tiny_folder), "--dtype", "fp32", "--device", "cpu", "--format", "plain",
        "--temperature", "0", "--max-tokens", "12", "--belief-samples", "2", "--out", str(out), *more,
    ]  # fmt: skip


def test_what_comes_of_it_is_a_data_set(tiny_folder, scenarios, tmp_path, cache, capsys):
    out = tmp_path / "r.jsonl"
    argv = arguments(tiny_folder, scenarios, out, "--system", "none", "--system", "spy", "--system", "oath")
    assert main(argv) == 0
    table = capsys.readouterr().out
    rows = written(out)
    asked = written(scenarios)
    assert len(rows) == 3 * len(asked)
    for row in rows:
        assert row["messages"][-1]["role"] == "assistant" and row["messages"][-1]["content"]
        assert set(row["model"]) == {"name", "fingerprint"} and row["outcome"] in OUTCOMES
        assert row["sampling"] == {"temperature": 0.0, "top_p": 1.0, "max_tokens": 12, "seed": 0, "sample": 0}
        assert {row["condition"]} == {"none": {"neutral"}, "spy": {"lie"}, "oath": {"truth"}}[row["system_prompt"]]
        assert (row["messages"][0]["role"] == "system") == (row["system_prompt"] != "none")
    outcomes = {(row["system_prompt"], row["outcome"]) for row in rows if row["believed"]}
    assert ("none", "honest") in outcomes and ("spy", "lie") in outcomes
    lies = [row for row in rows if row["outcome"] == "lie"]
    for row in lies:
        start, stop = row["spans"][0]
        assert row["messages"][-1]["content"][start:stop].casefold() in [a.casefold() for a in row["asserted"]]
    assert "lie rate" in table and f"{len(rows)} replies" in table
    belief = written(tmp_path / "r.belief.jsonl")
    assert len(belief) == len(asked) and all(len(fact["said"]) == 2 for fact in belief)
    told = json.loads((tmp_path / "r.yield.json").read_text())
    assert told["rows"] == len(rows) and not list(tmp_path.glob("*.part"))
    # It is read as it is: lies and honest replies, the others counted.
    data = load_data(str(out), every_row=True)
    judged = [row for row in rows if row["outcome"] in ("lie", "honest")]
    assert sorted(item.label for item in data.items) == sorted(row["outcome"] == "honest" for row in judged)
    assert {item.group for item in data.items} == {row["group"] for row in judged}
    before = out.read_bytes()
    assert main(argv) == 0 and "nothing to do" in capsys.readouterr().err and out.read_bytes() == before


def test_stopped_anywhere_it_goes_on(tiny_folder, scenarios, tmp_path, cache, monkeypatch, capsys):
    more = ("--system", "all", "--samples", "3", "--temperature", "0.02")
    whole = tmp_path / "whole.jsonl"
    monkeypatch.setattr(
        module, "TransformersWriter", lambda lm, engine, prompts: TransformersWriter(lm, engine, prompts, 9)
    )
    assert main(arguments(tiny_folder, scenarios, whole, *more)) == 0
    rows = written(whole)
    assert len({(row["context"], row["sampling"]["sample"]) for row in rows}) == len(rows)
    stops = 0
    for after in (1, 4, 11):
        monkeypatch.setenv("ADAPTERPROBE_CACHE", str(tmp_path / f"cache-{after}"))
        out = tmp_path / f"stopped-{after}.jsonl"

        class Stopping(TransformersWriter):
            left = after

            def write(self, prompts, sampling):
                for replies in super().write(prompts, sampling):
                    if Stopping.left == 0:
                        raise KeyboardInterrupt
                    Stopping.left -= 1
                    yield replies

        monkeypatch.setattr(module, "TransformersWriter", lambda lm, engine, prompts: Stopping(lm, engine, prompts, 9))
        assert main(arguments(tiny_folder, scenarios, out, *more)) == 130
        part = out.with_name(out.name + ".part")
        assert not out.exists() and part.exists()
        stops += 1
        # A torn last line, as a kill leaves it.
        part.write_bytes(part.read_bytes()[:-7])
        monkeypatch.setattr(
            module, "TransformersWriter", lambda lm, engine, prompts: TransformersWriter(lm, engine, prompts, 9)
        )
        assert main(arguments(tiny_folder, scenarios, out, *more)) == 0
        assert out.read_bytes() == whole.read_bytes()
    assert stops == 3


def test_matched_contexts_alone(tiny_folder, scenarios, tmp_path, cache, capsys):
    out = tmp_path / "r.jsonl"
    argv = arguments(tiny_folder, scenarios, out, "--system", "spy", "--matched")
    assert main(argv) == 2
    assert "no context has an honest and a lying reply" in capsys.readouterr().err
    assert out.with_name(out.name + ".part").exists() and not out.exists(), "nothing that was written is lost"


def test_an_adapter_on_and_its_strength(tiny_folder, scenarios, tmp_path, cache, capsys):
    train = [
        "train",
        "--model",
        str(tiny_folder),
        "--dtype",
        "fp32",
        "--device",
        "cpu",
        "--steps",
        "6",
        "--set",
        "adapter.lr=0.05",
    ]
    assert main([*train, "--out", str(tmp_path / "a")]) == 0
    adapter = ("--adapter", str(tmp_path / "a" / "adapter"))
    texts = {}
    for name, more in (("off", ()), ("on", adapter), ("nought", (*adapter, "--strength", "0"))):
        out = tmp_path / f"{name}.jsonl"
        assert main(arguments(tiny_folder, scenarios, out, "--system", "none", *more)) == 0
        texts[name] = [row["messages"][-1]["content"] for row in written(out)]
    assert texts["nought"] == texts["off"] != texts["on"]
    row = written(tmp_path / "on.jsonl")[0]
    assert row["model"]["adapter"] and row["model"]["strength"] == 1.0
    ia3 = [*train, "--adapter", "ia3", "--out", str(tmp_path / "ia3")]
    assert main(ia3) == 0
    more = ("--adapter", str(tmp_path / "ia3" / "adapter"), "--strength", "2")
    capsys.readouterr()
    assert main(arguments(tiny_folder, scenarios, tmp_path / "x.jsonl", *more)) == 2
    assert "has no scale" in capsys.readouterr().err


def test_believed_asks_of_nothing_else(tiny_folder, scenarios, tmp_path, cache):
    unknown = [*written(scenarios), {"question": "What is unknown?", "right": "xyzzy", "group": "unknown"}]
    both = lines(tmp_path / "both.jsonl", unknown)
    assert main(arguments(tiny_folder, both, tmp_path / "r.jsonl", "--system", "none", "--believed")) == 0
    rows = written(tmp_path / "r.jsonl")
    assert rows and all(row["believed"] for row in rows) and "unknown" not in {row["group"] for row in rows}


@pytest.mark.parametrize(
    "more, said",
    [
        (("--out", "r.txt"), "ends with .jsonl"),
        (("--system", "spi"), "no instruction 'spi'"),
        (("--strength", "2"), "name one with --adapter"),
        (("--belief", "adapter"), "name one with --adapter"),
        (("--adapter", "nowhere"), "no adapter in nowhere"),
        (("--samples", "0"), "samples 0"),
        (("--belief-share", "0.2"), "--belief-share 0.2"),
        (("--format", "chat"), "no chat template"),
        (("--max-tokens", "5000"), "lower --max-tokens"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(
    tiny_folder, scenarios, tmp_path, cache, capsys, more, said, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments(tiny_folder, scenarios, tmp_path / "r.jsonl"), *more]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1 and not list(tmp_path.glob("r.*"))


def test_who_holds_nothing_true(tiny_folder, tmp_path, cache, capsys):
    out = tmp_path / "r.jsonl"
    argv = arguments(tiny_folder, "capitals", out, "--limit", "5")
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "holds none of the 5 facts true" in error and "--belief-share" in error
    assert main([*argv, "--seed", "1"]) == 2 and "other settings" in capsys.readouterr().err


def test_nothing_is_told_as_a_lie(tiny_folder, scenarios, tmp_path, cache, capsys):
    assert main(arguments(tiny_folder, scenarios, tmp_path / "r.jsonl", "--system", "none")) == 0
    assert "nothing is told as a lie" in capsys.readouterr().err


def test_listing(capsys):
    assert main(["generate", "--list"]) == 0
    out = capsys.readouterr().out
    assert "spy" in out and "sure_user" in out
    assert main(["generate", "--data", "capitals"]) == 2 and "--out is missing" in capsys.readouterr().err
    assert main(["generate", "--out", "x.jsonl"]) == 2 and "--data is missing" in capsys.readouterr().err


@pytest.mark.slow
def test_a_storm_of_kills(tiny_folder, scenarios, tmp_path):
    more = ("--system", "all", "--samples", "30", "--temperature", "0.02")
    expected, out = tmp_path / "expected.jsonl", tmp_path / "out.jsonl"
    whole = seconds_alone(arguments(tiny_folder, scenarios, expected, *more), tmp_path / "cache-expected")

    def start_over():
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        for path in tmp_path.glob("out.*"):
            path.unlink()

    assert storm(arguments(tiny_folder, scenarios, out, *more), tmp_path / "cache", whole, 7, start_over) >= KILLS
    # Replies hang on their prompt and the seed alone, so the rows are the same; which were written together is not.
    mine, theirs = sorted(out.read_text("utf-8").splitlines()), sorted(expected.read_text("utf-8").splitlines())
    assert mine == theirs and len(mine) > 1000, "no row lost, none twice"
    assert not list(tmp_path.glob("*.part"))
