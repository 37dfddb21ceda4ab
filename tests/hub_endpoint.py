"""An endpoint that speaks as much of the hub's protocol as fetching a repository and committing to one take."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

SHA = "a" * 40


class Hub:
    """Repositories by name, each files by path; what was asked, and with which token."""

    def __init__(self):
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.asked: list[str] = []
        self.tokens: dict[str, str | None] = {}

    def commit(self, name: str, lines: list[dict]) -> None:
        for line in lines:
            if line["key"] == "file":
                value = line["value"]
                assert value["encoding"] == "base64"
                self.repositories[name][value["path"]] = base64.b64decode(value["content"])


@contextmanager
def hub_endpoint():
    """(what it holds, its address)."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, body=b"", **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if "Content_Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def told(self, content):
            self.answer(200, json.dumps(content).encode(), Content_Type="application/json")

        def path_of(self):
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            hub.tokens[hub.asked[-1]] = self.headers.get("Authorization")
            return path

        def missing(self):
            self.answer(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = self.path_of()
            if path.startswith("/api/models/"):
                name = "/".join(path.split("/")[3:5])
                if name not in hub.repositories:
                    return self.missing()
                files = hub.repositories[name]
                if "/tree/" in path:
                    return self.told(
                        [{"type": "file", "path": p, "size": len(c), "oid": SHA} for p, c in files.items()]
                    )
                return self.told({"id": name, "sha": SHA, "siblings": [{"rfilename": p} for p in files]})
            owner, repo, resolve, _, *rest = [*path[1:].split("/"), "", "", ""]
            content = hub.repositories.get(f"{owner}/{repo}", {}).get("/".join(rest).strip("/"))
            if resolve != "resolve" or content is None:
                return self.missing()
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            self.answer(200, content, ETag=etag, X_Repo_Commit=SHA, Content_Length=str(len(content)))

        def do_POST(self):
            path = self.path_of()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
                hub.repositories.setdefault(name, {})
                hub.private[name] = bool(asked.get("private") or asked.get("visibility") == "private")
                return self.told({"url": f"http://{self.headers['Host']}/{name}", "id": name})
            if path == "/api/validate-yaml":
                return self.told({"errors": [], "warnings": []})
            name = "/".join(path.split("/")[3:5])
            if path.startswith("/api/models/") and "/preupload/" in path:
                files = json.loads(body)["files"]
                return self.told(
                    {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
                )
            if path.startswith("/api/models/") and "/commit/" in path:
                hub.commit(name, [json.loads(line) for line in body.splitlines() if line])
                return self.told(
                    {
                        "commitUrl": f"http://{self.headers['Host']}/{name}/commit/{SHA}",
                        "commitOid": SHA,
                        "success": True,
                    }
                )
            self.missing()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
