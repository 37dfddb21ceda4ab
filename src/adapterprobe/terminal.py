"""What people read: text from outside is shown escaped, so that it cannot move the cursor or turn its neighbours round."""

from __future__ import annotations

import json
import re
import reprlib
import sys
from typing import TextIO

_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, escape sequences among them
    "\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, and changes of direction
    "\U000e0000-\U000e007f"  # tags: text that nobody sees
    "\ud800-\udfff"  # halves of characters: bytes that were not UTF-8
    "]"
)
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100
_short.maxlong = 40
_short.maxlevel = 3
_short.maxlist = _short.maxdict = _short.maxtuple = 4


def printable(text: object) -> str:
    r"""Text with what a terminal would obey, or nobody could see, as its escape; line ends and tabs stay.

    >>> printable("a\x1b[31mb\u202ec")
    'a\\x1b[31mb\\u202ec'
    """
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode("ascii"), str(text))


def one_line(text: object) -> str:
    """The same without line ends: an error is one line whatever it quotes."""
    return printable(" ".join(str(text).split()))


def reason_of(error: BaseException, most: int = 160) -> str:
    r"""The first line of what an error says, or its class where it says nothing.

    >>> reason_of(ValueError("no such layer\nand more")), reason_of(KeyError())
    ('no such layer', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0][:most]


def shortened(value: object) -> str:
    """`repr` of a value of any size in about a hundred characters: what an error says that it got.

    >>> shortened("x" * 1000)[-3:], len(shortened(list(range(10**6)))) < 40
    ("xx'", True)
    """
    try:
        return _short.repr(value)
    except (ValueError, RecursionError):
        # A number too long to be written out, or something that holds itself.
        return f"a {type(value).__name__}"


def json_line(record: object) -> str:
    r"""A record as one line of JSON that is safe on a terminal: escaped characters are the same JSON.

    >>> json_line({"a": "\x9b31m"})
    '{"a": "\\u009b31m"}'
    """

    def escape(found: re.Match) -> str:
        return json.dumps(found.group())[1:-1]

    return _UNSAFE.sub(escape, json.dumps(record, ensure_ascii=False, default=str))


def echo(text: object = "", file: TextIO | None = None) -> None:
    """Print for people: the only place that writes to the terminal beside bars (see `progress`)."""
    file = file or sys.stdout
    safe = printable(text)
    try:
        print(safe, file=file)
    except UnicodeEncodeError:
        # A terminal that is not UTF-8.
        encoding = getattr(file, "encoding", None) or "ascii"
        print(safe.encode(encoding, "backslashreplace").decode(encoding), file=file)
