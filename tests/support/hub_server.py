"""A Hub on the loopback address: git and LFS commits, downloads, private repositories, and faults on demand."""

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

TOKENS = {"hf_writer": ("me", "write"), "hf_reader": ("me", "read"), "hf_stranger": ("other", "write")}
REPOSITORY = r"(?P<repo>[\w.-]+/[\w.-]+)"
KIND = r"(?P<kind>model|dataset)s"
PREFIX = r"(?P<prefix>datasets/)?"
REVISION = r"(?P<revision>[^/]+)"
ROUTES = [
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", rf"/api/{KIND}/{REPOSITORY}/preupload/{REVISION}", "preupload"),
    ("POST", rf"/{PREFIX}{REPOSITORY}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>\w+)", "lfs_upload"),
    ("POST", rf"/api/{KIND}/{REPOSITORY}/commit/{REVISION}", "commit"),
    ("GET", rf"/api/{KIND}/{REPOSITORY}/tree/{REVISION}(?:/(?P<path>.*))?", "tree"),
    ("GET", rf"/api/{KIND}/{REPOSITORY}(?:/revision/{REVISION})?", "info"),
    ("GET", rf"/{PREFIX}{REPOSITORY}/resolve/{REVISION}/(?P<path>.+)", "resolve"),
]


@dataclass
class Fault:
    """What happens to the next `times` requests whose "METHOD /path" holds `pattern`."""

    pattern: str
    status: int | None = None
    """Of the answer; None drops the connection."""
    times: int = 1
    retry_after: int | None = None
    after: bool = False
    """Drop the connection when the request has been served, instead of in the middle of its body."""

    def answer(self) -> "Answer":
        """Returns what is answered."""
        more = {} if self.retry_after is None else {"Retry_After": self.retry_after}
        return Answer(self.status or 500, {"error": "as the test wants"}, **more)


@dataclass
class Repository:
    """Its commits, each a message and the files after it; a file is (content, whether it is LFS)."""

    owner: str
    private: bool = False
    commits: list[tuple[str, dict[str, tuple[bytes, bool]]]] = field(default_factory=lambda: [("initial commit", {})])

    @property
    def files(self) -> dict[str, bytes]:
        """Returns the newest content."""
        return {path: content for path, (content, _) in self.commits[-1][1].items()}

    def add(self, message: str, files: dict[str, bytes]) -> None:
        new = {path: (content, is_binary(content[:512])) for path, content in files.items()}
        self.commits.append((message, {**self.commits[-1][1], **new}))

    def oid(self, number: int = -1) -> str:
        return hashlib.sha1(f"{id(self)} {range(len(self.commits))[number]}".encode()).hexdigest()

    def at(self, revision: str) -> int | None:
        """Returns the number of the commit that a branch or a commit's name means."""
        oids = {self.oid(number): number for number in range(len(self.commits))}
        return {**oids, "main": len(self.commits) - 1}.get(unquote(revision))


class Hub(ThreadingHTTPServer):
    """Enter it to start it; `repositories`, `faults` and `requests` may be used from the test at any time."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: Counter[str] = Counter()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def add(self, kind: str, repo: str, files: dict[str, bytes], *, private: bool = False) -> None:
        """Puts files into a repository of `me`, new or there."""
        key = f"{kind}s/{repo}"
        self.repositories.setdefault(key, Repository(repo.split("/")[0], private)).add("add", files)

    def handle_error(self, request, client_address):
        """Ignores clients that go away, which is part of the tests."""


class Answer:
    """A status, a body (bytes, or what becomes JSON), and headers, written with underscores."""

    def __init__(self, status: int, body=None, **headers):
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}


class RefusedError(Exception):
    """Ends a request with the answer that it is made from."""


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        words = f"{self.command} {url.path}"
        self.server.requests[words] += 1
        self.query = parse_qs(url.query)
        fault = next((f for f in self.server.faults if f.times > 0 and f.pattern in words), None)
        if fault is not None:
            fault.times -= 1
        length = int(self.headers.get("Content-Length") or 0)
        if fault is not None and fault.status is None and not fault.after:
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        self.content = self.rfile.read(length)
        try:
            answer = self._route(url.path) if fault is None or fault.after else fault.answer()
        except RefusedError as error:
            answer = error.args[0]
        self.close_connection = fault is not None and fault.after
        if not self.close_connection:
            self._send(answer)

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815 - names that http.server wants

    def log_message(self, *_):
        pass

    def _send(self, answer: Answer) -> None:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        headers = {"Content-Length": len(body), "Content-Type": "application/json", **answer.headers}
        with suppress(ConnectionError):
            self.send_response(answer.status)
            for name, value in headers.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def _route(self, path: str) -> Answer:
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, name in ROUTES:
            match = re.fullmatch(pattern, path)
            if wanted == method and match:
                values = match.groupdict()
                if "prefix" in values:
                    values["kind"] = "dataset" if values.pop("prefix") else "model"
                self._authenticate()
                if "repo" in values:
                    self._authorize(values.pop("kind"), values.pop("repo"))
                return getattr(self, name)(**values)
        return Answer(404, {"error": f"There is no {path}."})

    def _authenticate(self) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise RefusedError(Answer(401, {"error": "Invalid credentials in Authorization header"}))
        self.user, self.role = TOKENS.get(token, (None, "read"))

    def _authorize(self, kind: str, name: str) -> None:
        repository = self.server.repositories.get(f"{kind}s/{name}")
        if repository is None or (repository.private and repository.owner != self.user):
            raise RefusedError(
                Answer(404 if self.user else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            )
        if self.command == "POST" and (repository.owner != self.user or self.role != "write"):
            raise RefusedError(Answer(403 if self.user else 401, {"error": "You may not write here"}))
        self.repository, self.kind, self.name = repository, kind, name

    def _revision(self, revision: str | None) -> int:
        number = self.repository.at(revision or "main")
        if number is None:
            raise RefusedError(Answer(404, {"error": "Revision not found"}, X_Error_Code="RevisionNotFound"))
        return number

    def validate(self):
        return Answer(200, {"errors": [], "warnings": []})

    def create(self):
        wanted = json.loads(self.content)
        if self.user is None or self.role != "write":
            return Answer(401 if self.user is None else 403, {"error": "You may not create repositories"})
        name = f"{wanted.get('organization') or self.user}/{wanted['name']}"
        kind, prefix = wanted.get("type", "model"), "datasets/" if wanted.get("type") == "dataset" else ""
        url = {"url": f"{self.server.endpoint}/{prefix}{name}", "name": name, "id": name}
        if f"{kind}s/{name}" in self.server.repositories:
            return Answer(409, {"error": "You already created this repo", **url})
        private = wanted.get("visibility") == "private"
        self.server.repositories[f"{kind}s/{name}"] = Repository(self.user, private)
        return Answer(200, url)

    def preupload(self, revision):
        there = self.repository.commits[self._revision(revision)][1]
        modes = []
        for file in json.loads(self.content)["files"]:
            path, mode = file["path"], "lfs" if is_binary(base64.b64decode(file["sample"])) else "regular"
            known = oid(*there[path]) if path in there else None
            modes.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known})
        return Answer(200, {"files": modes})

    def lfs_batch(self):
        objects = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in json.loads(self.content)["objects"]]
        for wanted in objects:
            if wanted["oid"] not in self.server.blobs:
                wanted["actions"] = {"upload": {"href": f"{self.server.endpoint}/lfs/{wanted['oid']}"}}
        return Answer(200, {"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid):
        if hashlib.sha256(self.content).hexdigest() != oid:
            return Answer(400, {"error": "The content is not that of the name."})
        self.server.blobs[oid] = self.content
        return Answer(200, {})

    def commit(self, revision):
        files, message = dict(self.repository.commits[self._revision(revision)][1]), ""
        for line in map(json.loads, self.content.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"]), False
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]], True
        self.repository.commits.append((message, files))
        oid = self.repository.oid()
        url = f"{self.server.endpoint}/{self.name}/commit/{oid}"
        return Answer(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def info(self, revision=None):
        number = self._revision(revision)
        siblings = [{"rfilename": path} for path in self.repository.commits[number][1]]
        more = {"private": self.repository.private, "tags": [], "downloads": 0, "siblings": siblings}
        return Answer(200, {"id": self.name, "sha": self.repository.oid(number), **more})

    def _entries(self, number: int) -> list[dict]:
        """Lists files, and the folders that they are in."""
        files = self.repository.commits[number][1]
        folders = {str(folder) for path in files for folder in PurePosixPath(path).parents} - {"."}
        return [{"type": "directory", "path": path, "oid": "0" * 40} for path in sorted(folders)] + [
            {"type": "file", "path": path, "size": len(content), "oid": oid(content, False)}
            | ({"lfs": {"oid": oid(content, True), "size": len(content), "pointerSize": 130}} if is_lfs else {})
            for path, (content, is_lfs) in files.items()
        ]

    def tree(self, revision, path=None):
        start = f"{unquote(path)}/" if path else ""
        entries = [entry for entry in self._entries(self._revision(revision)) if entry["path"].startswith(start)]
        if path and not entries:
            return Answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        if self.query.get("recursive", ["false"])[0].lower() not in ("1", "true"):
            entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(start)]
        return Answer(200, entries)

    def resolve(self, revision, path):
        number = self._revision(revision)
        file = self.repository.commits[number][1].get(unquote(path))
        commit = {"X_Repo_Commit": self.repository.oid(number)}
        if file is None:
            return Answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", **commit)
        content, headers = file[0], {"ETag": f'"{oid(*file)}"', "Accept_Ranges": "bytes", **commit}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return Answer(200, content, **headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        return Answer(206, content[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(content)}", **headers)


def is_binary(sample: bytes) -> bool:
    """Returns whether a file that starts like this goes the LFS way."""
    return b"\0" in sample


def oid(content: bytes, is_lfs: bool) -> str:
    """Returns the name of a file's content in git, or in LFS."""
    if is_lfs:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
