"""Unpacks a zip that somebody else made: no member outside the target, no links, limits on size and growth."""

import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Final

from doctogres.errors import CohortError
from doctogres.files import partial_beside
from doctogres.progress import counted

MAX_ZIP_BYTES: Final = 64 * 2**30
MAX_ZIP_RATIO: Final = 200  # of unpacked to packed bytes; pictures are compressed already, a zip bomb is not
RATIO_FREE_BYTES: Final = 64 * 2**20  # below this size unpacked, no ratio is suspicious
MAX_ZIP_DEPTH: Final = 64  # folders in folders; making and removing them is recursive
# zipfile inflates these in pieces; a read of any other method may fill the memory before the first byte is counted.
METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED: Final = 1


def unpack_zip(path: Path, target: Path) -> None:
    """Unpacks a zip beside the target and renames, so that a killed process leaves nothing that looks finished.

    Raises:
        CohortError: damaged; encrypted; members outside the target; links; too large, or growing as a zip bomb does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _safe_members(archive, path)
            with partial_beside(target, needed=sum(member.file_size for member in members)) as temporary:
                temporary.mkdir()
                for member in counted(members, f"unpacking {path.name}", "files", len(members)):
                    _unpack_member(archive, member, temporary)
                if not target.is_dir():
                    temporary.rename(target)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, struct.error) as error:
        raise CohortError(f"{path} cannot be unpacked ({error}); zip the cohort's folder again") from error


def _safe_members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The files of the archive, once every member has been found harmless."""
    members = [member for member in archive.infolist() if not member.filename.startswith("__MACOSX")]
    files = [member for member in members if not _is_folder(member)]
    unpacked = sum(member.file_size for member in files)
    packed = max(1, path.stat().st_size)  # and not what the members announce, which may share their bytes
    if unpacked > MAX_ZIP_BYTES:
        raise CohortError(f"{path} would unpack to {unpacked} bytes, more than {MAX_ZIP_BYTES}; unpack it yourself")
    if unpacked > RATIO_FREE_BYTES and unpacked > MAX_ZIP_RATIO * packed:
        raise CohortError(
            f"{path} would grow {unpacked // packed} times when unpacked (limit {MAX_ZIP_RATIO}), as a zip bomb does; "
            "unpack it yourself if you trust it"
        )
    names: set[str] = set()
    for member in members:
        name = _name(member)
        drive = name.parts and ":" in name.parts[0]
        if name.is_absolute() or drive or ".." in name.parts or "\0" in member.orig_filename:
            raise CohortError(f"{path} holds the member {member.filename!r}, which lies outside the archive; remove it")
        if len(name.parts) > MAX_ZIP_DEPTH:
            raise CohortError(f"{path} holds folders {len(name.parts)} deep (limit {MAX_ZIP_DEPTH}); zip fewer of them")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise CohortError(f"{path} holds {member.filename!r}, a link or special file; zip the files themselves")
        if member.flag_bits & ENCRYPTED or member.compress_type not in METHODS:
            raise CohortError(
                f"{path} holds {member.filename!r}, encrypted or compressed in a rare way; zip the cohort's folder "
                "without a password, with the usual method (deflate)"
            )
        if str(name).casefold() in names:  # some file systems do not tell a.png from A.png
            raise CohortError(f"{path} holds the member {member.filename!r} twice; zip the cohort's folder again")
        names.add(str(name).casefold())
    return files


def _name(member: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(member.filename.replace("\\", "/"))  # some Windows programs write backslashes


def _is_folder(member: zipfile.ZipInfo) -> bool:
    return member.filename.endswith(("/", "\\"))


def _unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    target = folder / _name(member)
    target.parent.mkdir(parents=True, exist_ok=True)
    # zipfile stops at the announced size and checks the CRC, so a header that lies cannot unpack more than was counted.
    with archive.open(member) as source, target.open("xb") as file:
        shutil.copyfileobj(source, file, 2**20)
        if file.tell() != member.file_size:
            raise zipfile.BadZipFile(f"{member.filename!r} holds {file.tell()} bytes, not {member.file_size}")
