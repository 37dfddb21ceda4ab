"""Keep transformers' progress bars and advice off a terminal that shows ours."""

from __future__ import annotations

import contextlib
import logging as standard
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within, transformers (and accelerate, of weights that are elsewhere as was asked) reports errors only."""
    from transformers.utils import logging

    accelerate = standard.getLogger("accelerate.big_modeling")
    told = accelerate.level
    accelerate.setLevel(standard.ERROR)
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        accelerate.setLevel(told)
        if bars:
            logging.enable_progress_bar()
