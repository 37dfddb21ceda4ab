"""Templates of other people, rendered in a child process with limits.

Jinja's own sandbox keeps a template from calling what it should not, but not from running for ever or asking for all memory
(`{{ 'a' * 10**10 }}`, loops within loops, a macro that calls itself). So a user's `.jinja` file and the chat template that comes with
a tokenizer are compiled and rendered in a process of their own: `SECONDS` for each text, `MEMORY` beyond what this process has, and
texts of at most `LONGEST` characters. The child is forked once a template and answers over pipes (some 0.1 ms a text). Where there
is no fork (Windows), templates are rendered here, inside Jinja's sandbox alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

SECONDS = 10.0
MEMORY = 1 << 30
LONGEST = 4_000_000
MOST_CHILDREN = 4

Render = Callable[..., str]


class TemplateFailed(Exception):
    """What a template raised, ran beyond, or gave that is no text."""


class _Child:
    """A forked process that renders one template."""

    def __init__(self, compile_template: Callable[[], Render]) -> None:
        there, here = os.pipe()
        back, answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _serve(there, answer, compile_template)
            finally:
                os._exit(0)
        os.close(there)
        os.close(answer)
        self._ask, self._answer = here, back
        self._one_at_a_time = threading.Lock()
        self.open = True

    def render(self, **given: Any) -> str:
        try:
            with self._one_at_a_time:
                _send(self._ask, given)
                status, text = _receive(self._answer, time.monotonic() + SECONDS)
        except TimeoutError:
            self.close()
            raise TemplateFailed(f"it takes more than {SECONDS:.0f} s for one text") from None
        except (EOFError, OSError):
            self.close()
            raise TemplateFailed("it asks for too much memory, or nests too deeply") from None
        except BaseException:
            # An interrupt: what was asked for would be taken for the answer to the next question.
            self.close()
            raise
        if status != "text":
            raise TemplateFailed(text)
        return text

    def close(self) -> None:
        self.open = False
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
        for handle in (self._ask, self._answer):
            with contextlib.suppress(OSError):
                os.close(handle)
        with contextlib.suppress(OSError):
            os.waitpid(self.pid, 0)


_children: OrderedDict[Hashable, _Child] = OrderedDict()
_making = threading.Lock()


def render_apart(key: Hashable, compile_template: Callable[[], Render], **given: Any) -> str:
    """What a template makes of `given` (values of JSON).

    Args:
        key: names the template; whoever asks with it again gets the same child.
        compile_template: gives the function that renders; called in the child.

    Raises:
        TemplateFailed: it raises, takes too long or too much memory, or gives too long a text.
    """
    if not hasattr(os, "fork"):
        return _bounded(compile_template(), given)
    key = (os.getpid(), key)
    with _making:
        child = _children.get(key)
        if child is None:
            child = _children[key] = _Child(compile_template)
            while len(_children) > MOST_CHILDREN:
                _, oldest = _children.popitem(last=False)
                oldest.close()
        _children.move_to_end(key)
    try:
        return child.render(**given)
    finally:
        if not child.open:
            _children.pop(key, None)


def _bounded(render: Render, given: dict[str, Any]) -> str:
    try:
        text = render(**given)
    except RecursionError:
        raise TemplateFailed("it nests too deeply") from None
    except MemoryError:
        raise TemplateFailed("it asks for too much memory") from None
    except Exception as error:
        raise TemplateFailed((str(error).strip() or type(error).__name__)[:400]) from error
    if len(text) > LONGEST:
        raise TemplateFailed(f"it gives a text of {len(text)} characters, at most {LONGEST} are taken")
    return text


def _serve(ask: int, answer: int, compile_template: Callable[[], Render]) -> None:
    """The child's life: no file of the parent's stays open in it (a lock would outlive the parent), and it ends with the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    highest = max(ask, answer) + 1
    for handle in range(3, highest):
        if handle not in (ask, answer):
            with contextlib.suppress(OSError):
                os.close(handle)
    os.closerange(highest, highest + 65536)
    _limit_memory()
    render: Render | None = None
    while True:
        try:
            given = _receive(ask, None)
        except (EOFError, OSError):
            return
        # Whatever becomes of the parent, a text that never ends ends this process.
        signal.setitimer(signal.ITIMER_REAL, SECONDS + 2)
        try:
            if render is None:
                render = compile_template()
            reply = ("text", _bounded(render, given))
        except TemplateFailed as error:
            reply = ("failed", str(error))
        except (RecursionError, MemoryError):
            reply = ("failed", "it asks for too much memory, or nests too deeply")
        except Exception as error:
            reply = ("failed", (str(error).strip() or type(error).__name__)[:400])
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answer, reply)


def _limit_memory() -> None:
    import resource

    try:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))


def _send(handle: int, content: Any) -> None:
    data = json.dumps(content).encode()
    data = struct.pack("!Q", len(data)) + data
    while data:
        data = data[os.write(handle, data[: 1 << 16]) :]


def _receive(handle: int, until: float | None) -> Any:
    (size,) = struct.unpack("!Q", _read(handle, 8, until))
    return json.loads(_read(handle, size, until))


def _read(handle: int, size: int, until: float | None) -> bytes:
    parts = []
    while size:
        if until is not None:
            ready, _, _ = select.select([handle], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
        part = os.read(handle, min(size, 1 << 16))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
