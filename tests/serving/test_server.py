"""A server of detectors, asked over real sockets: by OpenAI's own client, by curl-like requests, and by hostile ones."""

import asyncio
import gc
import json
import socket
import threading
import time
import weakref

import httpx
import numpy as np
import openai
import pytest
import torch

from adapterprobe.cli import main
from adapterprobe.detectors.detector import Detector
from adapterprobe.errors import ConfigError, DataError, OutputError
from adapterprobe.models import load_model
from adapterprobe.serving.app import make_app
from adapterprobe.serving.limits import Limits
from adapterprobe.serving.metrics import Metrics
from adapterprobe.serving.run import found_token, listening, make_server
from adapterprobe.serving.worker import Worker
from reply_detectors import talk

TOKEN = "a-token-of-this-test"
QUESTION = [{"role": "user", "content": "In which land is town 5?"}]


class Served:
    """A server in a thread, at a port of its own."""

    def __init__(self, detectors, token=None, **limits):
        self.detectors, self.limits = detectors, Limits(**limits)
        self.app = make_app(detectors, token, self.limits)
        self.socket = listening("127.0.0.1", 0, token)
        self.server = make_server(self.app, self.limits)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(30)
        self.socket.close()
        assert not self.thread.is_alive()

    def post(self, path, body, **options):
        return httpx.post(self.url + path, json=body, timeout=60, **options)

    def raw(self, data: bytes, wait: float = 5.0) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            connection.sendall(data)
            found = b""
            try:
                while part := connection.recv(65536):
                    found += part
            except TimeoutError:
                pass
            return found


@pytest.fixture(scope="module")
def detectors(reply_detectors):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERPROBE_CACHE", str(reply_detectors / "cache"))
        lm = load_model(str(reply_detectors / "chatty"), device="cpu", dtype="fp32")
        return {name: Detector.load(reply_detectors / name, lm) for name in ("off", "on", "tokens")}


@pytest.fixture(scope="module")
def server(detectors):
    with Served(detectors, TOKEN, head_seconds=1.0, inputs=40, new_tokens=64) as served:
        yield served


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key=TOKEN, max_retries=0, timeout=60)


AUTH = {"Authorization": f"Bearer {TOKEN}"}


def test_scores_are_those_of_the_detector(server, detectors):
    talks = [talk(n, n % 2 == 0) for n in range(35)]
    got = server.post("/v1/score", {"inputs": talks}, headers=AUTH)
    assert got.status_code == 200 and set(got.json()["scores"]) == {"off", "on", "tokens"}
    for name, detector in detectors.items():
        table = detector.score(talks)
        rows = got.json()["scores"][name]
        np.testing.assert_allclose([row["score"] for row in rows], table["score"], atol=2e-5)
        assert [row["decision"] for row in rows] == table["decision"].tolist()
        assert [row["answer"] for row in rows] == table["answer"].astype(object).where(
            table["answer"].notna(), None
        ).tolist()
    one = server.post("/v1/score", {"inputs": [talks[0]], "detectors": ["off"]}, headers=AUTH).json()["scores"]
    assert list(one) == ["off"] and len(one["off"]) == 1


def test_openais_client_writes_and_reads_scores(server, client, detectors):
    options = {"max_new_tokens": 7, "do_sample": False}
    watched = list(detectors["off"].watch(QUESTION, **options))
    model = client.models.list().data[0].id
    whole = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=7, temperature=0)
    text = "".join(token.text for token in watched)
    assert whole.choices[0].message.content == text and whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 7
    extra = whole.model_extra["adapterprobe"]
    assert [token["token"] for token in extra["tokens"]] == [token.text for token in watched]
    np.testing.assert_allclose([t["off"]["so_far"] for t in extra["tokens"]], [t.so_far for t in watched], atol=1e-5)
    # The adapter's detector cannot read single tokens while they are written, and has its say on the whole reply.
    assert set(extra["tokens"][0]) == {"token", "off", "tokens"} and set(extra["detectors"]) == {"off", "on", "tokens"}
    full = detectors["on"].score([[*QUESTION, {"role": "assistant", "content": text}]])
    assert extra["detectors"]["on"]["score"] == pytest.approx(full["score"][0], abs=2e-5)

    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=QUESTION,
            max_completion_tokens=7,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    parts = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content is not None]
    assert "".join(chunk.choices[0].delta.content for chunk in parts) == text
    np.testing.assert_allclose(
        [c.model_extra["adapterprobe"]["off"]["score"] for c in parts], [t.score for t in watched], atol=1e-5
    )
    end = next(chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason)
    assert end.model_extra["adapterprobe"]["detectors"] == extra["detectors"]
    assert chunks[-1].usage.completion_tokens == 7 and not chunks[-1].choices


def test_sampling_is_as_asked(client, detectors):
    def write(**options):
        made = client.chat.completions.create(model="off", messages=QUESTION, max_tokens=12, **options)
        return made.choices[0].message.content

    warm = [write(temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert warm[0] == warm[1] != warm[2]
    torch.manual_seed(1)
    settings = {"max_new_tokens": 12, "do_sample": True, "temperature": 1.5, "top_p": 1.0, "top_k": 0}
    assert "".join(t.text for t in detectors["off"].watch(QUESTION, **settings)) == warm[0]
    # One token that carries nearly everything: nothing else is drawn.
    assert write(temperature=1.5, seed=1, top_p=1e-6) == write(temperature=0) == write(temperature=1e-38)


def test_parts_of_a_message_are_joined(client):
    parts = [{"type": "text", "text": "In which land "}, {"type": "text", "text": "is town 5?"}]
    one = client.chat.completions.create(
        model="off", messages=[{"role": "user", "content": parts}], max_tokens=5, temperature=0
    )
    other = client.chat.completions.create(model="off", messages=QUESTION, max_tokens=5, temperature=0)
    assert one.choices[0].message.content == other.choices[0].message.content


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"model": "off", "messages": QUESTION, "tools": []}, "tools: Extra inputs are not permitted"),
        ({"model": "off", "messages": QUESTION, "n": 2}, "body.n"),
        ({"model": "off", "messages": QUESTION, "max_tokens": 65}, "writes at most 64"),
        (
            {"model": "off", "messages": [*QUESTION, {"role": "user", "content": "x " * 600}]},
            "the model takes 512 in all",
        ),
        ({"model": "none such", "messages": QUESTION}, "no detector 'none such' here; there are off, on, tokens"),
        ({"model": "on", "messages": QUESTION}, "no detector here reads tokens while they are written"),
        ({"model": "off", "messages": talk(1, True)}, "ends with the assistant's turn"),
        ({"model": "off", "messages": []}, "body.messages"),
        ({"model": "off", "messages": [{}] * 100_000}, "body.messages.0"),
        ({"model": "off", "messages": [{"role": "user", "content": [1] * 300_000}]}, "at most 1000 parts"),
        ({"model": "off", "messages": [{"role": "user", "content": "x", "name": "y"}]}, "name: Extra inputs"),
        ({"model": "off", "messages": [{"role": "user", "content": " "}]}, "message 0 (user) is empty"),
        ({"model": "off", "messages": [{"role": "user", "content": "<eos> so"}]}, "control token"),
        ({"model": "off", "messages": QUESTION, "temperature": -1}, "body.temperature"),
        ({"model": "off", "messages": [{"role": "user", "content": "\ud800"}]}, "message 0: 'content' is not UTF-8"),
    ],
)
def test_chat_that_is_refused(client, server, body, says):
    got = httpx.post(
        server.url + "/v1/chat/completions",
        content=json.dumps(body),
        headers=AUTH | {"Content-Type": "application/json"},
        timeout=60,
    )
    assert got.status_code == 400 and says in got.json()["error"]["message"]
    assert "\n" not in got.json()["error"]["message"]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (["just a text"], "reads replies"),
        ([QUESTION], "give conversations that end with the assistant's turn"),
        ([talk(1, True)] * 33 + [QUESTION], "among the inputs from number 32 on"),
        ([talk(1, True)] * 41, "41 inputs, and this server takes 40 at once"),
        ([[*QUESTION, {"role": "assistant", "content": "\ud800"}]], "not UTF-8"),
        ([], "body.inputs"),
        ([3], "body.inputs"),
        ([1] * 300_000, "body.inputs.0"),
        (talk(1, True), "put conversations in a list"),
    ],
)
def test_scores_that_are_refused(server, inputs, says):
    got = httpx.post(
        server.url + "/v1/score",
        content=json.dumps({"inputs": inputs}),
        headers=AUTH | {"Content-Type": "application/json"},
        timeout=60,
    )
    assert got.status_code == 400 and says in got.text, got.text


def test_who_may_ask(server, detectors):
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
    ):
        got = server.post("/v1/score", {"inputs": [talk(1, True)]}, headers=headers)
        assert got.status_code == 401 and got.headers["www-authenticate"] == "Bearer"
    assert httpx.get(server.url + "/metrics").status_code == 401
    assert httpx.get(server.url + "/health").json()["detectors"]["off"]["verified"] is True
    assert httpx.get(server.url + "/docs", headers=AUTH).status_code == 404
    got = httpx.get(server.url + "/v1/score", headers=AUTH)
    assert got.status_code == 405 and "error" in got.json()
    # Without a token: whoever names this machine, and no page that was led here by its name.
    with Served(detectors) as plain:
        assert httpx.get(plain.url + "/health").status_code == 200
        assert httpx.get(f"http://localhost:{plain.port}/v1/models").status_code == 200
        got = httpx.get(plain.url + "/v1/models", headers={"Host": "evil.example"})
        assert got.status_code == 403 and "--token-file" in got.text
        got = httpx.post(plain.url + "/v1/score", content=b"{}", headers={"Content-Type": "text/plain"})
        assert got.status_code == 415


def test_size_and_time_are_bounded(server, detectors):
    big = b'{"inputs": ["' + b"x" * (1 << 20) + b'"]}'
    got = httpx.post(server.url + "/v1/score", content=big, headers=AUTH | {"Content-Type": "application/json"})
    assert got.status_code == 413

    # In pieces, without a length.
    def pieces():
        for _ in range(30):
            yield b"x" * 65536

    try:
        status = httpx.post(
            server.url + "/v1/score", content=pieces(), headers=AUTH | {"Content-Type": "application/json"}
        ).status_code
    except httpx.WriteError:
        status = 413  # closed while it still sends
    assert status == 413
    head = f"POST /v1/score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n".encode()
    assert b" 408 " in server.raw(head + b"Content-Length: 100\r\n\r\n{")
    begun = time.monotonic()
    assert server.raw(head) == b"" and server.raw(b"") == b"" and time.monotonic() - begun < 9
    with Served(detectors, TOKEN, seconds=0.01, new_tokens=400) as hasty:
        asked = {"model": "off", "messages": QUESTION, "max_tokens": 400, "temperature": 2.0, "seed": 3}
        got = hasty.post("/v1/chat/completions", asked, headers=AUTH)
        assert got.status_code == 504 and "not done within 0.01 s" in got.text


def test_a_full_queue_says_so(detectors):
    with Served(detectors, TOKEN, waiting=1, new_tokens=450) as served:
        chat = {"model": "off", "messages": QUESTION, "max_tokens": 450, "temperature": 2.0, "seed": 3, "stream": True}
        with httpx.stream("POST", served.url + "/v1/chat/completions", json=chat, headers=AUTH, timeout=60) as writing:
            lines = writing.iter_lines()
            assert next(lines).startswith("data: ")
            got = served.post("/v1/score", {"inputs": [talk(1, True)]}, headers=AUTH)
            assert got.status_code == 429 and got.headers["retry-after"] == "1"
        # Whoever has gone stops the writing, and the next one is served.
        until = time.monotonic() + 30
        while (got := served.post("/v1/score", {"inputs": [talk(1, True)]}, headers=AUTH)).status_code == 429:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert got.status_code == 200


def test_a_reply_that_cannot_be_scored_is_not_lost(server, detectors, monkeypatch):
    def refuses(*_):
        raise DataError("the reply stands for a missing value")

    monkeypatch.setattr("adapterprobe.serving.chat.score_all", refuses)
    body = {"model": "off", "messages": QUESTION, "max_tokens": 4, "temperature": 0}
    got = server.post("/v1/chat/completions", body, headers=AUTH).json()
    assert got["choices"][0]["message"]["content"] and len(got["adapterprobe"]["tokens"]) == 4
    assert got["adapterprobe"]["detectors"] == {} and "missing value" in got["adapterprobe"]["unread"]
    with httpx.stream(
        "POST", server.url + "/v1/chat/completions", json=body | {"stream": True}, headers=AUTH
    ) as stream:
        text = stream.read().decode()
    assert "missing value" in text and text.endswith("data: [DONE]\n\n")


def test_a_template_that_refuses(server, detectors, monkeypatch):
    lm = next(iter(detectors.values())).lm
    monkeypatch.setattr(lm.tokenizer, "chat_template", "{{ raise_exception('no system message, please') }}")
    got = server.post("/v1/chat/completions", {"model": "off", "messages": QUESTION}, headers=AUTH)
    assert got.status_code == 400 and "no system message, please" in got.text


def test_whoever_does_not_read_is_left(detectors):
    with Served(detectors, TOKEN, head_seconds=0.5) as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
            until = time.monotonic() + 20
            # Until the server, whose answers nobody reads, hangs up.
            with pytest.raises(OSError):
                while time.monotonic() < until:
                    connection.sendall(request * 100)
                    time.sleep(0.01)
        assert time.monotonic() < until
        assert httpx.get(served.url + "/health").status_code == 200


def test_what_was_dropped_leaves_the_queue():
    """The bodies of requests whose clients have gone do not wait behind a long job."""
    worker, held, go = Worker(2, Metrics()), [], threading.Event()

    class Body:
        def __init__(self):
            held.append(weakref.ref(self))

    async def drop():
        first = asyncio.ensure_future(worker.run(lambda stopped: go.wait(20)))
        await asyncio.sleep(0.05)
        for _ in range(50):
            body = Body()
            task = asyncio.ensure_future(worker.run(lambda stopped, body=body: body))
            del body
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            del task
        gc.collect()
        alive = sum(ref() is not None for ref in held)
        go.set()
        await first
        return alive

    assert asyncio.run(drop()) <= 1 and len(held) == 50


def test_what_prometheus_reads(server, detectors):
    def count(name):
        lines = httpx.get(server.url + "/metrics", headers=AUTH).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    before = count('adapterprobe_inputs_total{detector="off"}'), count("adapterprobe_written_tokens_total")
    alarms = count('adapterprobe_alarms_total{detector="off"}')
    server.post("/v1/score", {"inputs": [talk(n, True) for n in range(5)], "detectors": ["off"]}, headers=AUTH)
    server.post(
        "/v1/chat/completions", {"model": "off", "messages": QUESTION, "max_tokens": 4, "temperature": 0}, headers=AUTH
    )
    assert count('adapterprobe_inputs_total{detector="off"}') == before[0] + 6
    assert count("adapterprobe_written_tokens_total") == before[1] + 4
    raised = detectors["off"].score([talk(n, True) for n in range(5)])["decision"].sum()
    assert count('adapterprobe_alarms_total{detector="off"}') - alarms - raised in (0, 1)
    for n in range(5):
        httpx.get(f"{server.url}/no/such/{n}", headers=AUTH)
    text = httpx.get(server.url + "/metrics", headers=AUTH).text
    assert 'route="other",status="404"' in text and "no/such" not in text


def test_an_error_of_ours_is_not_the_clients(server, detectors, monkeypatch):
    monkeypatch.setattr("adapterprobe.serving.app.score_all", lambda *_: 1 / 0)
    got = server.post("/v1/score", {"inputs": [talk(1, True)]}, headers=AUTH)
    assert got.status_code == 500 and "division" not in got.text and got.json()["error"]["type"] == "server_error"


def test_before_it_listens(tmp_path, monkeypatch, reply_detectors, capsys):
    monkeypatch.delenv("ADAPTERPROBE_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="give a bearer token by --token-file"):
        listening("0.0.0.0", 0, None)
    with listening("127.0.0.1", 0, None) as taken, pytest.raises(OutputError, match="choose another --host or --port"):
        listening("127.0.0.1", taken.getsockname()[1], None)
    with pytest.raises(OutputError, match="to 65535"):
        listening("127.0.0.1", 99999, None)
    (tmp_path / "t").write_text("short\n")
    with pytest.raises(ConfigError, match="at least 8 printable"):
        found_token(str(tmp_path / "t"))
    with pytest.raises(ConfigError, match="cannot read the token file"):
        found_token(str(tmp_path / "none"))
    (tmp_path / "t").write_text(TOKEN + "\n")
    assert found_token(str(tmp_path / "t")) == TOKEN and found_token(None) is None
    monkeypatch.setenv("ADAPTERPROBE_TOKEN", TOKEN)
    assert found_token(None) == TOKEN
    folder = str(reply_detectors / "off")
    assert main(["serve", folder, "--timeout", "0"]) == 2
    assert main(["serve", folder, folder, "--port", "0", "--model", str(reply_detectors / "chatty")]) == 2
    assert "two detectors are named" in capsys.readouterr().err


def test_the_command_serves(reply_detectors, monkeypatch, capsys):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(reply_detectors / "cache"))
    monkeypatch.delenv("ADAPTERPROBE_TOKEN", raising=False)
    asked = {}

    def run(self, sockets):
        thread = threading.Thread(target=original, args=(self, sockets), daemon=True)
        thread.start()
        while not self.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        asked["health"] = httpx.get(url + "/health").json()
        asked["score"] = httpx.post(url + "/v1/score", json={"inputs": [talk(1, True)]}, timeout=60).json()
        self.should_exit = True
        thread.join(30)

    from uvicorn import Server

    original = Server.run
    monkeypatch.setattr(Server, "run", run)
    argv = ["serve", f"mine={reply_detectors / 'off'}", str(reply_detectors / "on"), "--port", "0"]
    assert main([*argv, "--model", str(reply_detectors / "chatty")]) == 0
    assert "mine" in asked["health"]["detectors"] and len(asked["score"]["scores"]) == 2
    assert "http://127.0.0.1:" in capsys.readouterr().out
