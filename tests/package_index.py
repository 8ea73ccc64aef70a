"""A package index on loopback, with hand-made releases: what pip's index serves, and nothing else."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class LocalIndex:
    """Releases of one project, served under `url`; `requests` are the paths that were asked for."""

    folder: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)

    def add(self, project: str, filename: str, content: bytes, digest: str | None = None) -> str:
        """Adds a file to a project's page, with the digest the page shall claim; returns its true sha256."""
        true_digest = hashlib.sha256(content).hexdigest()
        page = self.folder / project / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        (page.parent / filename).write_bytes(content)
        fragment = "" if digest == "" else f"#sha256={digest or true_digest}"
        before = page.read_text(encoding="utf-8") if page.is_file() else "<!DOCTYPE html><html><body>\n"
        page.write_text(f'{before}<a href="{filename}{fragment}">{filename}</a>\n', encoding="utf-8")
        return true_digest


@contextmanager
def serve(folder: Path) -> Iterator[LocalIndex]:
    """Serves `folder` on a free port of loopback until the block is left."""
    index = LocalIndex(folder)

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            index.requests.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        index.url = f"http://127.0.0.1:{server.server_address[1]}/"
        try:
            yield index
        finally:
            server.shutdown()


def make_zip(members: Mapping[str, bytes]) -> bytes:
    """Returns a zip (a wheel, an sdist) with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def make_tar(members: Mapping[str, bytes | tarfile.TarInfo], mode: str = "w:gz") -> bytes:
    """Returns a tar with these files; a TarInfo is put in as it is (a link, a device)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                file.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
