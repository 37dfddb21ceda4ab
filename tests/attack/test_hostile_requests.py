"""Ten thousand requests that nobody should send: the server neither grows nor falls, and answers the next good one."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from reply_detectors import talk

TOKEN = "a-token-of-this-test"
GOOD = json.dumps({"inputs": [talk(1, True)]}).encode()


def request(body: bytes, path="/v1/score", method="POST", length=None, token=TOKEN, more=b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    return head.encode() + more + f"Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def hostile(rng: random.Random) -> tuple[bytes, bool]:
    """What is sent, and whether the connection is cut before an answer."""
    deep = rng.choice([b"[" * 100_000, b'{"inputs":' * 20_000, b'{"inputs": [' + b"[" * 900 + b"]" * 900 + b"]}"])
    content = rng.choice(["\\ud800", "\\u0000", "x" * 20_000, "<|im_end|>" * 200, "\\u202e", " "])
    odd = (
        f'{{"inputs": [[{{"role": "user", "content": "{content}"}}, {{"role": "assistant", "content": "{content}"}}]]}}'
    )
    kinds = [
        lambda: rng.randbytes(rng.randint(1, 3000)),
        lambda: request(rng.randbytes(rng.randint(0, 2000))),
        lambda: request(deep),
        lambda: request(odd.encode()),
        lambda: request(b'{"inputs": [' + b"1" * 5000 + b"]}"),
        lambda: request(b'{"inputs": [NaN, 1e999, -0, {"messages": {"role": 3}}]}'),
        lambda: request(json.dumps({"inputs": [[{"role": rng.choice("abc"), "content": None}]] * 50}).encode()),
        lambda: request(json.dumps({"inputs": [talk(1, True)], "detectors": ["x" * 150]}).encode()),
        lambda: request(json.dumps({"model": "off", "messages": [], "max_tokens": -1}).encode(), "/v1/chat/completions"),
        lambda: request(b"{}", "/v1/chat/completions", more=b"Transfer-Encoding: chunked\r\n"),
        lambda: request(GOOD, token="wrong"),
        lambda: request(GOOD, length=10**15),
        lambda: request(GOOD, length=-3),
        lambda: request(GOOD, more=b"X: " + b"y" * 100_000 + b"\r\n"),
        lambda: request(GOOD, more=b"".join(b"X%d: y\r\n" % n for n in range(2000))),
        lambda: request(GOOD, "/" + "%2e%2e/" * rng.randint(1, 500)),
        lambda: request(GOOD, f"/v1/{rng.random()}"),
        lambda: request(GOOD, method=rng.choice(["PUT", "DELETE", "TRACE", "BREW", "\x7f"])),
        lambda: request(GOOD)[: rng.randint(1, 150)],
        lambda: request(GOOD[: rng.randint(1, 50)], length=len(GOOD)),
        lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        lambda: request(b"", "/health", "GET", more=b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"),
    ]  # fmt: skip
    return rng.choice(kinds)(), rng.random() < 0.5


@pytest.mark.slow
def test_ten_thousand_hostile_requests(reply_detectors, tmp_path):
    log = (tmp_path / "log").open("wb")
    command = [sys.executable, "-m", "adapterprobe.cli", "serve", f"off={reply_detectors / 'off'}", "--port", "0"]
    settings = {
        "ADAPTERPROBE_TOKEN": TOKEN,
        "ADAPTERPROBE_CACHE": str(reply_detectors / "cache"),
        "PYTHONUNBUFFERED": "1",
    }
    served = subprocess.Popen(
        [*command, "--model", str(reply_detectors / "chatty")],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        address = next(line for line in served.stdout if line.startswith("http")).split()[0]
        port = int(address.rpartition(":")[2])

        def good() -> httpx.Response:
            return httpx.post(
                f"{address}/v1/score", content=GOOD, timeout=60,
                headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
            )  # fmt: skip

        while True:
            try:
                first = good()
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        assert first.status_code == 200

        def attack(seed: int) -> bytes:
            data, cut = hostile(random.Random(seed))
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
                    connection.sendall(data)
                    if cut:
                        return b""
                    return connection.recv(65536)
            except OSError:
                return b""  # closed on us, or half a request, for the rest of which the server waits

        sizes, statuses = [], {}
        process = psutil.Process(served.pid)
        with ThreadPoolExecutor(8) as pool:
            for part in range(10):
                for answer in pool.map(attack, range(part * 1000, part * 1000 + 1000)):
                    status = answer.split(b" ")[1:2]
                    key = status[0].decode("latin-1") if status else "none"
                    statuses[key] = statuses.get(key, 0) + 1
                again = good()
                assert again.status_code == 200 and again.json() == first.json()
                sizes.append(process.memory_info().rss)
        assert statuses.get("500", 0) == 0 and statuses.get("400", 0) > 500, statuses
        # The first thousand warm up; after that it does not grow.
        assert sizes[-1] < sizes[1] * 1.05 + 10e6, sizes
        assert process.num_fds() < 100 and process.num_threads() < 64
    finally:
        served.terminate()
        served.wait(30)
        served.stdout.close()
        log.close()
    assert b"Traceback" not in (tmp_path / "log").read_bytes()
