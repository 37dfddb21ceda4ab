"""`adapterprobe serve`: detectors as a server."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from adapterprobe.cli.options import add_detector_model_options
from adapterprobe.serving.limits import Limits
from adapterprobe.terminal import echo

if TYPE_CHECKING:
    from adapterprobe.detectors.detector import Detector

EPILOG = """examples:
  adapterprobe serve detectors/mine
  adapterprobe serve spy=detectors/a other=detectors/b --model ./my-model --port 9000
  adapterprobe serve detectors/mine --host 0.0.0.0 --token-file token.txt

  curl -s localhost:8000/v1/score -H 'Content-Type: application/json' -d '{"inputs": ["The city of Lyon is in France."]}'

POST /v1/score takes texts or conversations; POST /v1/chat/completions is OpenAI's, with the scores of tokens in the field
`adapterprobe`; GET /v1/models, /health, /metrics (Prometheus). Detectors share one model. Needs `pip install 'adapterprobe[serve]'`."""

LIMITS = (
    ("--max-body", "body_bytes", "BYTES", "most bytes of a request"),
    ("--max-inputs", "inputs", "N", "most inputs of a request"),
    ("--max-new-tokens", "new_tokens", "N", "most tokens of a reply"),
    ("--queue", "waiting", "N", "requests that may wait for the model"),
    ("--timeout", "seconds", "S", "seconds that an answer may take"),
)
"""Options, and the field of `Limits` that each sets."""


def add(commands) -> None:
    parser = commands.add_parser(
        "serve",
        help="detectors as a server: scores, and chat in OpenAI's form",
        description="Serve detectors of one model over HTTP, on this machine alone unless told otherwise.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "detectors",
        nargs="+",
        metavar="DETECTOR",
        help="folder of a detector, or OWNER/NAME on the hub; NAME=DETECTOR gives it another name",
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, metavar="P", help="port (default: 8000)")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="file with the bearer token that requests must carry (or the variable ADAPTERPROBE_TOKEN)",
    )
    for option, name, metavar, what in LIMITS:
        default = getattr(Limits, name)
        parser.add_argument(
            option, type=type(default), default=default, metavar=metavar, help=f"{what} (default: {default})"
        )
    add_detector_model_options(parser)
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from adapterprobe.errors import ConfigError

    limits = _limits(args)
    try:
        from adapterprobe.serving.app import make_app
        from adapterprobe.serving.run import found_token, listening, make_server
        from adapterprobe.serving.worker import model_thread
    except ModuleNotFoundError as error:
        raise ConfigError(f"serve needs {error.name}: pip install 'adapterprobe[serve]'") from error
    named = _named(args.detectors)
    token = found_token(args.token_file)
    listener = listening(args.host, args.port, token)
    with listener:
        thread = model_thread()
        detectors = thread.submit(_loaded, named, args.model, not args.no_verify, args.device).result()
        host, port = listener.getsockname()[:2]
        for name, detector in detectors.items():
            echo(f"{name}: {detector}")
        echo(f"http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C ends it)")
        make_server(make_app(detectors, token, limits, thread), limits).run(sockets=[listener])


def _loaded(named: list[tuple[str | None, str]], model: str | None, verify: bool, device: str) -> dict[str, Detector]:
    """The detectors by name, on one model."""
    from adapterprobe.detectors.detector import Detector
    from adapterprobe.errors import ConfigError

    detectors: dict[str, Detector] = {}
    on: Any = model
    for name, source in named:
        detector = Detector.load(source, on, verify=verify, device=device)
        on = detector.lm
        name = name or detector.record.name
        if name in detectors:
            raise ConfigError(f"two detectors are named '{name}'; name one of them: NAME={source}")
        detectors[name] = detector
    return detectors


def _named(given: list[str]) -> list[tuple[str | None, str]]:
    """(name or None, where it is) of each."""
    parts = [text.partition("=") for text in given]
    return [
        (name, source) if mark and "/" not in name else (None, text)
        for text, (name, mark, source) in zip(given, parts, strict=True)
    ]


def _limits(args: argparse.Namespace) -> Limits:
    from adapterprobe.errors import ConfigError

    given = {name: (option, getattr(args, option.strip("-").replace("-", "_"))) for option, name, _, _ in LIMITS}
    for option, value in given.values():
        if not value > 0:
            raise ConfigError(f"{option} expects a number above 0, got {value}")
    return Limits(**{name: value for name, (_, value) in given.items()})
