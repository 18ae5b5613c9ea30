"""Files at addresses such as `s3://BUCKET/FOLDER`: copied into the workspace before they are read, or written there.

Nothing else knows which kinds of addresses there are: fsspec and its drivers do. A file is fetched whole, since its digest is
that of all its bytes, and OpenSlide reads files of this machine only. Fetched files are kept, each under a name made of its
address and version, so that an interrupted command continues and a changed file is fetched again. The copy of a folder consists
of links to them, and its name depends on all that is in it.
"""

import importlib.util
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from doctogres.addresses import check_address, masked
from doctogres.disk import check_space, size_text
from doctogres.errors import DoctogresError, ParameterError, RemoteError
from doctogres.files import digest_of, partial_beside, replacing, workspace
from doctogres.progress import counted

ADDRESS: Final = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
HERE: Final = ("file", "local")
FETCHED: Final = "fetched"  # in the workspace
KEPT: Final = "files"  # in it, beside the copies of folders
UNUSED: Final = 30 * 24 * 3600.0  # seconds after which a copy that no command has asked for is removed
AT_ONCE: Final = 8  # transfers: each waits for the network most of the time
# What changes with a file's content, as drivers call it; a checksum rather than a time, where there is one.
CHECKSUMS: Final = ("ETag", "etag", "md5Hash", "md5", "content_md5")
TIMES: Final = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")
WHOLE: Final = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory")  # show a file once all of it has arrived


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address.

    Attributes:
        store: its file system, in fsspec's terms.
        place: what that calls it.
        size: in bytes.
        version: changes with its content, and differs from those of all other files.
    """

    store: Any
    place: str
    size: int
    version: str

    @property
    def kept(self) -> Path:
        """Where its bytes are kept."""
        return workspace() / FETCHED / KEPT / self.version[:2] / self.version


def is_address(place: str | Path) -> bool:
    """Whether this is an address such as `s3://BUCKET/FOLDER`, and not a path."""
    return ADDRESS.match(str(place)) is not None


def check_usable(name: str, address: str) -> None:
    """Refuses an address that could not be opened from here; asks no other machine.

    Args:
        name: the parameter.
        address: its value.

    Raises:
        ParameterError: it holds a password, is of an unknown kind, or its driver is not installed.
    """
    check_address(name, address)
    from fsspec.registry import known_implementations

    if "::" in address:
        raise ParameterError(f"{name}={address}: addresses joined by :: are not read; give that of the file or folder")
    known = known_implementations.get(_scheme(address))
    if known is None:
        raise ParameterError(f"{name}={address}: {_scheme(address)}:// is not known; give a path or an s3:// address")
    driver = str(known["class"]).partition(".")[0]
    if importlib.util.find_spec(driver) is None:
        raise ParameterError(f"{name}={address}: {_scheme(address)}:// needs another package: pip install {driver}")


def local(place: str | Path) -> Path:
    """A path itself; of an address, the path of an up-to-date copy of its file or folder.

    Raises:
        ParameterError: see `check_usable`.
        RemoteError: it does not exist, is refused or cannot be reached.
        DiskFullError: the workspace has no space for it.
    """
    if not is_address(place):
        return Path(place)
    address = str(place).rstrip("/")
    check_usable("address", address)
    with naming(address):
        store, top = opened(address)
        if _scheme(address) in HERE:
            return Path(top)
        name = PurePosixPath(top).name
        info = store.info(top)
        folder = info["type"] == "directory"
        found = store.find(top, detail=True) if folder else {top: info}
    # A bucket's console marks a folder with an empty object whose name ends in a slash.
    files = {f"{name}{place[len(top) :]}": _file(store, info) for place, info in found.items() if place[-1] != "/"}
    if folder and not files:
        raise RemoteError(f"{address} holds no files; give the address of a file or of a folder with files")
    return _copy(address, files) / name


def local_files(addresses: Iterable[str]) -> dict[str, Path]:
    """The paths of copies of single files, by address; they lie to each other as they do at their addresses.

    Where there is no file at an address, there is none at its path, which is for the caller to report.

    Raises:
        ParameterError, RemoteError, DiskFullError: see `local`.
    """
    wanted = sorted(set(addresses))
    if not wanted:
        return {}
    for address in wanted:
        check_usable("address", address)
    from doctogres.engine import map_slides

    names = {address: ADDRESS.sub(r"\1/", address) for address in wanted}
    found = zip(names.values(), map_slides(_look, wanted, workers=AT_ONCE), strict=True)
    folder = _copy("", {name: file for name, file in found if file})
    return {address: folder / name for address, name in names.items()}


def send(path: Path, place: str | Path) -> None:
    """Copies a file to a path or an address, where all of it appears at once and replaces what is there.

    Raises:
        RemoteError: the address is refused or cannot be reached.
        DiskFullError: the disk is full.
    """
    if not is_address(place) or _scheme(str(place)) in HERE:
        with replacing(local(place)) as partial:
            shutil.copyfile(path, partial)
        return
    with naming(str(place)):
        store, target = opened(str(place))
        whole = _scheme(str(place)) in WHOLE
        store.put_file(str(path), target if whole else f"{target}.partial")
        if not whole:
            store.mv(f"{target}.partial", target)


def opened(address: str) -> tuple[Any, str]:
    """The file system of an address, in fsspec's terms, and what that calls the place; nothing of it is remembered."""
    import fsspec

    store, place = fsspec.core.url_to_fs(address)
    store.invalidate_cache()
    return store, place


@contextmanager
def naming(address: str) -> Iterator[None]:
    """Turns what a driver raises in the block into a RemoteError; our own errors pass.

    Raises:
        RemoteError: names the address, the reason and the remedy.
    """
    try:
        yield
    except DoctogresError:
        raise
    except FileNotFoundError as error:
        raise RemoteError(f"{address} does not exist; check the address, and for s3:// AWS_ENDPOINT_URL") from error
    except Exception as error:  # every driver has its own
        reason = masked(" ".join(str(error).split()) or type(error).__name__)
        problem = f"cannot be reached ({reason}); check the network and the credentials (docs/security.md)"
        if isinstance(error, PermissionError):  # S3 says it of a missing file, too, to whoever may not list the bucket
            problem = (
                f"is refused ({reason}); renew the credentials (docs/security.md), or check the address: what does not exist in a "
                "bucket that may not be listed is refused, too"
            )
        raise RemoteError(
            f"{address} {problem}; then run the same command again: it continues from what is kept"
        ) from error


def _scheme(address: str) -> str:
    return address.partition("://")[0].lower()


def _look(address: str) -> RemoteFile | None:
    """The file of an address; None where there is none."""
    with naming(address):
        store, place = opened(address)
        with suppress(FileNotFoundError):
            return _file(store, store.info(place))
    return None


def _file(store: Any, info: Mapping[str, Any]) -> RemoteFile:
    """A file by what its driver says of it."""
    known = [str(info[name]) for name in CHECKSUMS if info.get(name)][:1] or [
        str(info[name]) for name in TIMES if info.get(name)
    ]
    address = store.unstrip_protocol(info["name"])
    version = digest_of(address, info["size"], known or time.time_ns())  # nothing known: a new one
    return RemoteFile(store, str(info["name"]), int(info["size"]), version)


def _copy(address: str, files: Mapping[str, RemoteFile]) -> Path:
    """A folder in the workspace with these files, by their names in it."""
    for name in files:
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise RemoteError(f"{address} holds {name!r}, which would lie outside its copy; rename it")
    folder = workspace() / FETCHED / digest_of(address, sorted((name, file.version) for name, file in files.items()))
    if not folder.is_dir():
        with partial_beside(folder) as partial:
            partial.mkdir()
            # What is here is linked first, so that no clean-up, of this command or another, takes it while the rest is fetched.
            missing = {name: file for name, file in files.items() if not _linked(file, partial / name)}
            _fetch(address, list(missing.values()))
            for name, file in missing.items():
                os.link(file.kept, partial / name)
            if not folder.is_dir():
                partial.rename(folder)
    os.utime(folder)
    return folder


def _linked(file: RemoteFile, path: Path) -> bool:
    """Links a file to a path; False if it is still to be fetched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.kept, path)
    except FileNotFoundError:
        return False
    return True


def _fetch(address: str, files: list[RemoteFile]) -> None:
    """Fetches what is missing; a file that has arrived stays, whatever happens to the others."""
    if not files:
        return
    from doctogres.engine import map_slides

    _discard_unused()
    size = sum(file.size for file in files)
    check_space(workspace(), size)
    count = f"{len(files)} file{'s' * (len(files) != 1)}"
    print(f"fetch: {count}{' of ' * bool(address)}{address}, {size_text(size)}", flush=True)
    for _ in counted(map_slides(_fetch_one, files, workers=AT_ONCE), "fetch", "files", len(files)):
        pass


def _fetch_one(file: RemoteFile) -> None:
    with replacing(file.kept, needed=file.size) as partial:
        with naming(file.store.unstrip_protocol(file.place)):
            file.store.get_file(file.place, str(partial))
        if partial.stat().st_size != file.size:
            raise RemoteError(
                f"{file.store.unstrip_protocol(file.place)} changed while it was read; run the command again"
            )


def _discard_unused() -> None:
    """Removes copies that nobody has asked for in a long time, and the files that are in no other copy."""
    top, oldest = workspace() / FETCHED, time.time() - UNUSED
    for folder in top.glob("*"):
        with suppress(FileNotFoundError):  # another command discards, too
            if folder.name != KEPT and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
    for file in (top / KEPT).glob("*/*"):
        with suppress(FileNotFoundError):
            if (status := file.stat()).st_nlink == 1 and status.st_mtime < oldest:
                file.unlink()
