"""Downloads one archive of a release from the package index that pip is configured for."""

from __future__ import annotations

import configparser
import dataclasses
import errno
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

from launch.config.errors import ConfigError, Problem
from launch.config.sources import PackageFile

if TYPE_CHECKING:
    import pypi_simple
    import requests

CONNECT_AND_READ_TIMEOUT_S = (10.0, 60.0)
_NETWORK_FIX = "run once where there is a network (the file stays in the cache, FULLRANK_CACHE), or give a local path, or set pip's index-url"
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""These are not the index's fault: whoever made the folder knows what to say."""


def download(source: PackageFile, folder: Path, key: str) -> Path:
    """Downloads the release's archive that has the checksum into `folder`, and returns its path.

    The checksum is computed while the bytes arrive; another file is deleted again. Nothing is built or executed.

    Raises:
        ConfigError: no index answers, or none has such a file.
    """
    import pypi_simple
    import requests

    settings = read_pip_settings(os.environ)
    problems: list[Problem] = []
    seen: list[str] = []
    for index in settings.index_urls:
        with pypi_simple.PyPISimple(index or pypi_simple.PYPI_SIMPLE_ENDPOINT, session=_session(settings)) as client:
            try:
                for package in _candidates(client, source, seen):
                    target = folder / package.filename
                    client.download_package(package, target, progress=_progress_bar(package.filename), timeout=CONNECT_AND_READ_TIMEOUT_S)
                    return target
            except pypi_simple.NoSuchProjectError:
                continue
            except pypi_simple.DigestMismatchError:
                problems.append(Problem(f"{package.filename} does not have the sha256 {source.sha256}; it was not kept", key=key))
            except (requests.RequestException, OSError, pypi_simple.UnsupportedContentTypeError) as error:
                if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                    raise
                what = f"the package index {_without_secret(client.endpoint)} cannot be used: {_reason(error)}"
                problems.append(Problem(what, key=key, fix=_NETWORK_FIX))
    release = f"{source.name}=={source.version}"
    what = f"{release} has no file with the sha256 {source.sha256}" if seen else f"the package index has no {release}"
    raise ConfigError(*(problems or [Problem(what, key=key, allowed=", ".join(seen) or None)]))


@dataclasses.dataclass(frozen=True)
class PipSettings:
    """What pip's environment variables and files say of the package index.

    Args:
        index_urls: in the order of asking; None is the client library's own default.
        certificates: file of trusted certificates, or None for the usual ones.
        proxy: URL, or None for what the environment says.
    """

    index_urls: tuple[str | None, ...]
    certificates: str | None = None
    proxy: str | None = None


def read_pip_settings(environment: Mapping[str, str]) -> PipSettings:
    """Returns pip's settings as pip reads them: files of the machine, the person, the environment; then PIP_* variables.

    Source: https://pip.pypa.io/en/stable/topics/configuration/. uv's variables are read where pip has no index of its own.
    """
    values: dict[str, str] = {}
    for path in _pip_files(environment):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise ConfigError(Problem(f"pip's configuration cannot be read: {error}", where=str(path))) from error
        for section in ("global", "download", "install"):
            if parser.has_section(section):
                values |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    for name in ("index-url", "extra-index-url", "no-index", "cert", "proxy"):
        value = environment.get(f"PIP_{name.upper().replace('-', '_')}")
        if value:
            values[name] = value
    if values.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return PipSettings(())
    first = values.get("index-url") or environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL") or None
    extra = values.get("extra-index-url", "").split()
    return PipSettings((first, *extra), values.get("cert") or None, values.get("proxy") or None)


def _pip_files(environment: Mapping[str, str]) -> list[Path]:
    """Returns pip's configuration files that are there, weakest first."""
    chosen = environment.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return []
    home = Path(environment.get("HOME") or "~").expanduser()
    machine = [Path(folder) / "pip/pip.conf" for folder in (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)]
    person = [home / ".pip/pip.conf", Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"]
    is_chosen = chosen is not None and Path(chosen).is_file()
    files = [Path(chosen)] if chosen and is_chosen else []
    files += [*machine, Path("/etc/pip.conf"), *([] if is_chosen else person), Path(sys.prefix) / "pip.conf"]
    return [path for path in files if path.is_file()]


def _candidates(client: pypi_simple.PyPISimple, source: PackageFile, seen: list[str]) -> list[pypi_simple.DistributionPackage]:
    """Returns the release's files that may be the one, each to be verified against our checksum; `seen` gets the others' names."""
    page = client.get_project_page(source.name, timeout=CONNECT_AND_READ_TIMEOUT_S)
    release = [package for package in page.packages if package.version == source.version]
    matching = [package for package in release if package.digests.get("sha256", source.sha256).lower() == source.sha256]
    seen += [f"{package.filename}#sha256={package.digests['sha256']}" for package in release if package not in matching]
    return [dataclasses.replace(package, digests={"sha256": source.sha256}) for package in matching]


def _session(settings: PipSettings) -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    retries = HTTPAdapter(max_retries=Retry(total=2, backoff_factor=0.3, status_forcelist=(500, 502, 503, 504), raise_on_status=False))
    for scheme in ("https://", "http://"):
        session.mount(scheme, retries)
    session.mount("file://", _folder_adapter())
    if settings.certificates:
        session.verify = settings.certificates
    if settings.proxy:
        session.proxies = {"http": settings.proxy, "https": settings.proxy}
    return session


def _folder_adapter() -> Any:
    """Returns what lets requests read an index that is a folder (file:///...), as pip does."""
    import requests
    from requests.adapters import BaseAdapter
    from urllib3 import HTTPResponse

    class FolderAdapter(BaseAdapter):
        def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
            path = Path(url2pathname(urlsplit(str(request.url)).path))
            path = path / "index.html" if path.is_dir() else path
            response = requests.Response()
            response.request, response.url = request, str(request.url)
            response.status_code = 200 if path.is_file() else 404
            response.raw = HTTPResponse(path.open("rb") if path.is_file() else io.BytesIO(), preload_content=False)
            response.headers["Content-Type"] = "text/html"
            return response

        def close(self) -> None:
            pass

    return FolderAdapter()


def _progress_bar(name: str) -> Any:
    from pypi_simple import tqdm_progress_factory

    return tqdm_progress_factory(desc=name, unit="B", unit_scale=True, unit_divisor=1024, file=sys.stderr, disable=None, leave=False)


def _without_secret(url: str) -> str:
    """Returns a URL without the name and password in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _reason(error: BaseException) -> str:
    """Returns the innermost cause of a network failure; the layers above repeat it, with addresses."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error).strip() or type(error).__name__
