"""Messages of the library: through logging, silent unless somebody listens, a line each on the command line's stderr."""

import logging
import subprocess
import sys

from adapterprobe.progress import LOGGER, messages_shown, say


def test_nothing_is_said_unless_somebody_listens():
    code = "from adapterprobe.progress import say; say('quiet'); import logging; logging.basicConfig(level=logging.INFO); say('loud')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr.splitlines() == ["INFO:adapterprobe:loud"]


def test_shown_once_however_often_it_is_asked_for(capsys):
    """Also where a library has given the root logger a handler (MAPIE does, while a run goes on)."""
    theirs = logging.StreamHandler(sys.stderr)
    logging.root.addHandler(theirs)
    try:
        with messages_shown(), messages_shown():
            say("100 % of \x1b[31mit")
    finally:
        logging.root.removeHandler(theirs)
    assert capsys.readouterr().err == "100 % of \\x1b[31mit\n"
    assert sum(type(handler).__name__ == "_BesideBars" for handler in LOGGER.handlers) == 1
