"""`adapterprobe chat`: a conversation in the terminal, the model's tokens coloured by what a detector says of them."""

from __future__ import annotations

import argparse
import sys

from adapterprobe.cli.options import add_detector_model_options
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe chat detectors/mine
  adapterprobe chat detectors/mine --model ./my-model --system "You are a captured spy. Mislead your captors." --temperature 0.7

Ends with an empty line or Ctrl-D. Where the output is no terminal, tokens stand there without colours."""

SHADES = (None, 230, 223, 216, 209, 203, 196)
"""Backgrounds of a terminal with 256 colours, from a score of 0 to one of 1."""


def add(commands) -> None:
    parser = commands.add_parser(
        "chat",
        help="talk to the model in the terminal, its tokens coloured by a detector",
        description="Talk to the model that a detector reads; every token is coloured as it is written, by the score of the reply up "
        "to it, and a line says when the reply raises an alarm.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "detector", metavar="DETECTOR", help="folder of a detector of replies (base+probe), or OWNER/NAME on the hub"
    )
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument(
        "--max-new-tokens", type=int, default=200, metavar="N", help="most tokens of a reply (default: 200)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0: the likeliest token (default: 0)"
    )
    add_detector_model_options(parser)
    parser.set_defaults(go=go)


def shaded(text: str, score: float) -> str:
    """Text on the background of its score."""
    shade = SHADES[round(score * (len(SHADES) - 1))]
    return text if shade is None else f"\x1b[48;5;{shade}m\x1b[38;5;16m{text}\x1b[0m"


def go(args: argparse.Namespace) -> None:
    from adapterprobe.detectors.detector import Detector
    from adapterprobe.errors import ConfigError

    if args.max_new_tokens < 1 or args.temperature < 0:
        raise ConfigError(
            f"chat: expected --max-new-tokens of at least 1 and a --temperature of 0 or more, got {args.max_new_tokens} and {args.temperature}"
        )
    detector = Detector.load(args.detector, args.model, verify=not args.no_verify, device=args.device)
    options: dict = {"max_new_tokens": args.max_new_tokens, "do_sample": args.temperature > 0}
    if args.temperature > 0:
        options["temperature"] = args.temperature
    talk = [{"role": "system", "content": args.system}] if args.system else []
    coloured = sys.stdout.isatty()
    while True:
        try:
            said = input("you: " if coloured else "")
        except EOFError:
            break
        if not said.strip():
            break
        talk.append({"role": "user", "content": said})
        talk.append({"role": "assistant", "content": _reply(detector, talk, options, coloured)})


def _reply(detector, talk: list[dict], options: dict, coloured: bool) -> str:
    from adapterprobe.terminal import printable

    written, last, above = [], None, 0
    for token in detector.watch(talk, **options):
        text = printable(token.text)
        # The score of the reply so far, not the token's own: most detectors were fitted on pooled states, and single ones scatter.
        sys.stdout.write(shaded(text, token.so_far) if coloured else text)
        sys.stdout.flush()
        written.append(token.text)
        last = token
        above = above + 1 if token.alarm else 0
    sys.stdout.write("\n")
    if last is None:
        echo("[nothing was written]")
    else:
        score = f"score {last.so_far:.3f} for {detector.record.axis}"
        if above:
            echo(f"[ALARM, {score}; above the threshold since token {len(written) - above + 1} of {len(written)}]")
        else:
            echo(f"[{score}]")
    return "".join(written).strip() or "..."
