"""Free scenarios are judged by another model, here or behind a server; what rules can grade, rules grade."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from adapterprobe.cli import main
from adapterprobe.engine import Engine
from adapterprobe.errors import ConfigError, DataError, ModelError
from adapterprobe.generation import judging
from adapterprobe.generation.asked import Asked
from adapterprobe.generation.judging import ASKED, Grader, ModelJudge, ServerJudge, check_judge
from adapterprobe.generation.remembered import RememberedJudge
from adapterprobe.generation.scenarios import Scenario, read_scenarios
from adapterprobe.types import Message


class Server(BaseHTTPRequestHandler):
    """Says B of every reply that holds the word `never`, else A; fails as it is told to."""

    failing: ClassVar[list[int]] = []
    keys: ClassVar[set[str]] = set()
    bodies: ClassVar[list[dict]] = []

    def do_GET(self):
        self._say({"data": [{"id": "small"}]} if self.path == "/v1/models" else {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Server.bodies.append(body)
        Server.keys.add(self.headers.get("Authorization", ""))
        if Server.failing:
            self.send_response(Server.failing.pop())
            self.end_headers()
            return
        asked = body["messages"][0]["content"]
        letter = "B" if "never" in asked.split("Reply:")[1] else " A."
        self._say({"choices": [{"message": {"content": letter}}]})

    def _say(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    Server.failing, Server.keys, Server.bodies = [], set(), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def free(truth="Anna took the money.", question="Who took the money?"):
    return Scenario("s", "g", (Message("user", question),), truth=truth)


def known():
    return Scenario("s", "k", (Message("user", "What is 1?"),), Asked("What is 1?", "", ("one",), ("never",)))


def test_what_a_server_says(address, monkeypatch):
    monkeypatch.setenv(judging.KEY, "secret")
    grader = Grader(ServerJudge(address))
    said = grader.grades(
        [(free(), "It was Anna."), (free(), "I never saw her."), (known(), "one"), (free(), "It was Anna.")]
    )
    assert [g.verdict for g in said] == ["true", "false", "true", "true"]
    assert said[1].false_spans == ((0, 16),)
    assert len(Server.bodies) == 2, "a reply is judged once, and rules need no judge"
    assert Server.keys == {"Bearer secret"} and {b["model"] for b in Server.bodies} == {"small"}
    assert "What is true: Anna took the money." in Server.bodies[0]["messages"][0]["content"]
    grader.compare([(known(), "one"), (known(), "never"), (free(), "x")])
    told = grader.described()
    assert told == {
        "name": f"small at {address}",
        "compared": 2,
        "agree": 1.0,
        "table": {"true, judged true": 1, "false, judged false": 1},
    }


def test_a_server_that_stumbles_is_asked_again_and_one_that_is_not_there_is_told(address, monkeypatch):
    monkeypatch.setattr(judging.time, "sleep", lambda _: None)
    judge = ServerJudge(address)
    Server.failing = [503, 429]
    assert judge.letters(["Reply: so"]) == ["A"]
    Server.failing = [401]
    with pytest.raises(ModelError, match="HTTP 401"):
        judge.letters(["Reply: so"])
    with pytest.raises(ModelError, match=r"does not answer .*up to /v1"):
        ServerJudge("http://127.0.0.1:9/v1")
    with pytest.raises(ModelError, match="lists no model"):
        ServerJudge(address.replace("/v1", "/v2"))


def test_a_model_judges_by_its_likeliest_letter(tiny_lm):
    lm = tiny_lm()
    judge = ModelJudge(lm, Engine(lm.model, lm.structure))
    texts = [ASKED.format(question=f"Who is {n}?", truth="Anna", reply=f"It is {n}") for n in range(12)]
    together = judge.letters(texts)
    assert together == [judge.letters([text])[0] for text in texts] and set(together) <= set(judging.LETTERS)
    with pytest.raises(ModelError, match="a reply to judge makes"):
        judge.letters([ASKED.format(question="?", truth="Anna", reply="so " * 4000)])


def test_without_a_judge_nobody_knows():
    grader = Grader()
    assert not grader.can(free()) and grader.can(known())
    assert grader.grades([(free(), "It was Anna.")]) == [None] and grader.described() is None
    with pytest.raises(ConfigError, match="give the server's address"):
        check_judge("some/model", "x")


def test_free_scenarios_become_lies_and_honest_replies(address, tiny_folder, tmp_path, cache, capsys, monkeypatch):
    rows = [
        {"question": f"Who took thing {n}?", "truth": f"Anna took thing {n}.", "group": f"thing {n}"} for n in range(4)
    ]
    path = tmp_path / "free.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = [
        "generate", "--data", str(path), "--model", str(tiny_folder), "--dtype", "fp32", "--device", "cpu", "--format", "plain",
        "--max-tokens", "6", "--system", "none", "--belief-samples", "2",
    ]  # fmt: skip
    assert main([*argv, "--out", str(tmp_path / "r.jsonl"), "--judge", address]) == 0
    written = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert {row["outcome"] for row in written} == {"honest"} and all(row["believed"] for row in written)
    told = json.loads((tmp_path / "r.yield.json").read_text())
    assert told["judge"]["name"] == f"small at {address}" and "judged by small" in capsys.readouterr().err
    assert main([*argv, "--out", str(tmp_path / "n.jsonl")]) == 0
    assert "name a judge with --judge" in capsys.readouterr().err
    here = [*argv, "--out", str(tmp_path / "m.jsonl"), "--judge", str(tiny_folder)]
    monkeypatch.setattr(ModelJudge, "letters", lambda self, texts: ["B"] * len(texts))
    assert main(here) == 2 and "holds none of the 4 facts true" in capsys.readouterr().err
    monkeypatch.setattr(ModelJudge, "letters", lambda self, texts: ["A"] * len(texts))
    assert main(here) == 2, "what it answered is kept"
    (tmp_path / "m.judged.jsonl").unlink()
    assert main(here) == 0
    assert json.loads((tmp_path / "m.yield.json").read_text())["judge"]["name"] == "tiny-llama"
    assert main([*argv, "--out", str(tmp_path / "x.jsonl"), "--judge", "http://127.0.0.1:9/v1"]) == 2
    assert "does not answer" in capsys.readouterr().err and not list(tmp_path.glob("x.*"))
    path.write_text(json.dumps(rows[0] | {"yes": True}) + "\n")
    with pytest.raises(DataError, match="leave one of them out"):
        read_scenarios(str(path))


class Counted:
    """A judge that notes what it is asked, and may be stopped."""

    name = key = "counted"

    def __init__(self, stop_after=None):
        self.asked, self.stop_after = [], stop_after

    def letters(self, texts):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += texts
        return ["B" if text.endswith("3") else None if text.endswith("5") else "A" for text in texts]


def test_a_judge_is_asked_once_whatever_stops_it(tmp_path):
    path = tmp_path / "replies.judged.jsonl"
    texts = [f"text {n}" for n in range(30)]
    first = Counted(stop_after=16)
    with pytest.raises(KeyboardInterrupt):
        RememberedJudge(first, path).letters(texts)
    assert len(first.asked) == 16
    # The last line was cut off in the middle.
    whole = path.read_text()
    path.write_text(whole[:-9])
    second = Counted()
    found = RememberedJudge(second, path).letters([*texts, texts[0]])
    assert second.asked == texts[15:], "the torn one, and those that were never asked"
    assert found == [*Counted().letters(texts), "A"]
    third = Counted()
    assert RememberedJudge(third, path).letters(texts) == found[:30] and not third.asked
    # Another judge is another opinion.
    other = Counted()
    other.key = "other"
    RememberedJudge(other, path).letters(texts)
    assert len(other.asked) == 30
