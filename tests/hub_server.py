"""A hub on 127.0.0.1: the part of its protocol that huggingface_hub uses to download models."""

import hashlib
import json
import re
from urllib.parse import unquote, urlsplit

from loopback import LoopbackServer

LARGE = (".safetensors", ".bin")  # what repositories keep in git-lfs


class Hub(LoopbackServer):
    """repositories: {"owner/name": {"commits": {commit: {file: bytes}}, "refs": {"main": commit}}}; blobs by sha256.

    Large files are answered with a redirect to another host, "localhost", as the hub does to its CDN.
    """

    def __init__(self):
        super().__init__()
        self.repositories, self.blobs = {}, {}

    def push(self, repository, files, *refs):
        """Commit files, {name: bytes}, to a repository and move its refs (main) there; the commit."""
        repository = self.repositories.setdefault(repository, {"commits": {}, "refs": {}})
        commit = hashlib.sha1(b"".join(name.encode() + content for name, content in files.items())).hexdigest()
        repository["commits"][commit] = files
        repository["refs"] |= dict.fromkeys(refs or ("main",), commit)
        self.blobs |= {hashlib.sha256(content).hexdigest(): content for content in files.values()}
        return commit

    def answer(self, path, headers):
        path = unquote(urlsplit(path).path)
        if match := re.fullmatch("/cdn/([0-9a-f]{64})", path):
            return 200, {"Accept-Ranges": "bytes", "ETag": f'"{match[1]}"'}, self.blobs[match[1]]
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name, revision = (api[1], api[3] or "main") if api else (file[1], file[2])
        repository = self.repositories.get(name)
        if repository is None:
            return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."}, b""
        commit = repository["refs"].get(revision, revision)
        files = repository["commits"].get(commit)
        if files is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if not api:
            return self._file(files.get(file[3]), file[3], commit)
        content = [_entry(name, content) for name, content in files.items()]
        if api[2] != "tree":
            content = {"id": name, "sha": commit, "siblings": [{"rfilename": entry["path"]} for entry in content]}
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()

    def _file(self, content, name, commit):
        about = {"X-Repo-Commit": commit}
        if content is None:
            return 404, about | {"X-Error-Code": "EntryNotFound"}, b""
        if not name.endswith(LARGE):
            return 200, about | {"ETag": f'"{_git_digest(content)}"', "Accept-Ranges": "bytes"}, content
        digest = hashlib.sha256(content).hexdigest()
        about |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": len(content)}
        return 302, about | {"Location": f"http://localhost:{self.port}/cdn/{digest}"}, b""


def _entry(name, content):
    entry = {"type": "file", "path": name, "size": len(content), "oid": _git_digest(content)}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _git_digest(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
