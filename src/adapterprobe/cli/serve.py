"""`adapterprobe serve`: detectors as a server."""

from __future__ import annotations

import argparse

from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe serve detectors/mine
  adapterprobe serve spy=detectors/a other=detectors/b --model ./my-model --port 9000
  adapterprobe serve detectors/mine --host 0.0.0.0 --token-file token.txt

  curl -s localhost:8000/v1/score -H 'Content-Type: application/json' -d '{"inputs": ["The city of Lyon is in France."]}'

POST /v1/score takes texts or conversations; POST /v1/chat/completions is OpenAI's, with the scores of tokens in the field
`adapterprobe`; GET /v1/models, /health, /metrics (Prometheus). Detectors share one model. Needs `pip install 'adapterprobe[serve]'`."""


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
    parser.add_argument("--model", metavar="M", help="the model, where the detectors' is a local one")
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, metavar="P", help="port (default: 8000)")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="file with the bearer token that requests must carry (or the variable ADAPTERPROBE_TOKEN)",
    )
    parser.add_argument("--max-body", type=int, metavar="BYTES", help="most bytes of a request (default: 1048576)")
    parser.add_argument("--max-inputs", type=int, metavar="N", help="most inputs of a request (default: 256)")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="most tokens of a reply (default: 1024)")
    parser.add_argument("--queue", type=int, metavar="N", help="requests that may wait for the model (default: 32)")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds that an answer may take (default: 120)")
    parser.add_argument("--no-verify", action="store_true", help="do not replay the golden rows")
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from adapterprobe.errors import ConfigError

    limits = _limits(args)
    try:
        from adapterprobe.serving.app import make_app
        from adapterprobe.serving.run import found_token, listening, make_server
    except ModuleNotFoundError as error:
        raise ConfigError(f"serve needs {error.name}: pip install 'adapterprobe[serve]'") from error
    from adapterprobe.detectors.detector import Detector

    named = _named(args.detectors)
    token = found_token(args.token_file)
    listener = listening(args.host, args.port, token)
    with listener:
        detectors: dict[str, Detector] = {}
        model = args.model
        for name, source in named:
            detector = Detector.load(source, model, verify=not args.no_verify)
            model = detector.lm
            name = name or detector.record.name
            if name in detectors:
                raise ConfigError(f"two detectors are named '{name}'; name one of them: NAME={source}")
            detectors[name] = detector
        host, port = listener.getsockname()[:2]
        for name, detector in detectors.items():
            echo(f"{name}: {detector}")
        echo(f"http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C ends it)")
        make_server(make_app(detectors, token, limits), limits).run(sockets=[listener])


def _named(given: list[str]) -> list[tuple[str | None, str]]:
    """(name or None, where it is) of each."""
    parts = [text.partition("=") for text in given]
    return [
        (name, source) if mark and "/" not in name else (None, text)
        for text, (name, mark, source) in zip(given, parts, strict=True)
    ]


def _limits(args: argparse.Namespace):
    from adapterprobe.errors import ConfigError
    from adapterprobe.serving.limits import Limits

    options = {
        "body_bytes": ("--max-body", args.max_body),
        "inputs": ("--max-inputs", args.max_inputs),
        "new_tokens": ("--max-new-tokens", args.max_new_tokens),
        "waiting": ("--queue", args.queue),
        "seconds": ("--timeout", args.timeout),
    }
    for option, value in options.values():
        if value is not None and not value > 0:
            raise ConfigError(f"{option} expects a number above 0, got {value}")
    return Limits(**{name: value for name, (_, value) in options.items() if value is not None})
