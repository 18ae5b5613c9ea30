"""Copies of what lies at addresses, here fsspec's store in memory: fetched once, whole, and only where something changed."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from doctogres.errors import DiskFullError, ParameterError, RemoteError
from doctogres.remote import FETCHED, KEPT, UNUSED, check_usable, is_address, local, local_files, send
from tests.s3 import BUCKET, failing, reaching, s3_server

ADDRESS = "memory://bucket/study"


@pytest.fixture(autouse=True)
def store(in_memory: MemoryFileSystem) -> MemoryFileSystem:
    """A store with three files."""
    for name in ("a.png", "b.png", "deep/er/c.png"):
        in_memory.pipe_file(f"/bucket/study/{name}", name.encode())
    return in_memory


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The places that are fetched from now on."""
    places: list[str] = []
    get = MemoryFileSystem.get_file

    def counted(self: Any, place: str, *others: Any, **more: Any) -> None:
        places.append(place)
        get(self, place, *others, **more)

    monkeypatch.setattr(MemoryFileSystem, "get_file", counted)
    return places


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_copied_once_and_then_only_what_changed(store: MemoryFileSystem, fetched: list[str]) -> None:
    first = local(ADDRESS)
    assert content(first) == {name: name for name in ("a.png", "b.png", "deep/er/c.png")}
    assert (local(f"{ADDRESS}/"), len(fetched)) == (first, 3)
    store.pipe_file("/bucket/study/b.png", b"new")
    store.rm("/bucket/study/a.png")
    second = local(ADDRESS)
    assert content(second) == {"b.png": "new", "deep/er/c.png": "deep/er/c.png"}
    assert fetched[3:] == ["/bucket/study/b.png"]
    assert content(first)["b.png"] == "b.png"  # for whoever reads it at this moment


def test_single_files_lie_to_each_other_as_at_their_addresses(fetched: list[str]) -> None:
    names = [f"{ADDRESS}/a.png", f"{ADDRESS}/deep/er/c.png"]
    missing = f"{ADDRESS}/none.png"
    copies = local_files([*names, names[0], missing])
    assert not copies.pop(missing).exists()
    assert [path.read_text() for path in copies.values()] == ["a.png", "deep/er/c.png"]
    assert copies[names[1]].relative_to(copies[names[0]].parent) == Path("deep/er/c.png")
    assert local(names[0]).read_text() == "a.png"
    assert len(fetched) == 2


def test_an_interrupted_copy_goes_on_where_it_stopped(
    tmp_path: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    get = MemoryFileSystem.get_file

    def broken(self: Any, place: str, target: str, **more: Any) -> None:
        if place.endswith("b.png"):
            Path(target).write_bytes(b"ha")
            raise ConnectionError("Connection reset by peer")
        get(self, place, target, **more)

    with monkeypatch.context() as patcher:
        patcher.setattr(MemoryFileSystem, "get_file", broken)
        with pytest.raises(RemoteError, match="study/b.png cannot be reached .Connection reset by peer.; .*continues"):
            local(ADDRESS)
    arrived = {path.read_text() for path in (tmp_path / "workspace").rglob("*") if path.is_file()}
    assert arrived < {"a.png", "deep/er/c.png", "b.png"}  # the third is begun or not when the second fails
    assert "b.png" not in arrived
    fetched.clear()
    assert content(local(ADDRESS))["b.png"] == "b.png"
    assert {f"/bucket/study/{name}" for name in arrived}.isdisjoint(fetched)
    assert len(fetched) == 3 - len(arrived)


def test_a_file_that_arrives_in_part_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFileSystem, "get_file", lambda _, place, target: Path(target).write_bytes(b"ha"))
    with pytest.raises(RemoteError, match="changed while it was read"):
        local(f"{ADDRESS}/a.png")


def test_what_does_not_fit_on_the_disk_is_not_begun(fetched: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doctogres.disk.free_space", lambda _: 20)  # bytes; 23 are needed
    with pytest.raises(DiskFullError, match="is full: 23 bytes needed, 20 bytes free"):
        local(ADDRESS)
    assert fetched == []


def test_the_empty_objects_that_mark_folders_in_a_bucket_are_no_files(store: MemoryFileSystem) -> None:
    marks = ["/bucket/study/", "/bucket/study/deep/", "/bucket/none/"]
    store.store |= dict.fromkeys(marks, MemoryFile(store, "mark"))
    assert content(local(ADDRESS)) == {name: name for name in ("a.png", "b.png", "deep/er/c.png")}
    with pytest.raises(RemoteError, match="memory://bucket/none holds no files"):
        local("memory://bucket/none")


def test_a_name_that_leads_out_of_the_copy_is_refused(store: MemoryFileSystem, tmp_path: Path) -> None:
    store.store["/bucket/study/../../../../evil.png"] = store.store["/bucket/study/a.png"]
    try:
        with pytest.raises(RemoteError, match="outside its copy"):
            local(ADDRESS)
    finally:
        del store.store["/bucket/study/../../../../evil.png"]
    assert not list(tmp_path.rglob("evil.png"))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("memory://bucket/none", "memory://bucket/none does not exist; check the address"),
        ("s3://KEY:Apfelkuchen@bucket/study", "credentials"),
        ("gs://bucket/study", "pip install gcsfs"),
        ("ftps://bucket/study", "ftps:// is not known"),
        ("zip://a.png::s3://bucket/study.zip", "::"),
    ],
)
def test_what_cannot_be_opened_is_said_in_a_sentence(address: str, said: str) -> None:
    with pytest.raises((RemoteError, ParameterError)) as error:
        local(address)
    assert said in str(error.value)
    assert "Apfelkuchen" not in str(error.value)


def test_a_refusal_names_the_credentials_and_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("The provided token has expired.")

    monkeypatch.setattr(MemoryFileSystem, "info", refuse)
    with pytest.raises(
        RemoteError, match=r"is refused .The provided token has expired\..; renew the credentials"
    ) as error:
        local(ADDRESS)
    assert "does not exist in a bucket that may not be listed" in str(error.value)  # S3 says 403 of that, too


def test_a_file_address_is_a_path_and_copies_nothing(tmp_path: Path) -> None:
    (tmp_path / "a b.png").touch()
    assert local(f"file://{tmp_path}/a b.png") == tmp_path / "a b.png"
    assert local("a.png") == Path("a.png")
    assert not (tmp_path / "workspace").exists()
    assert not any(map(is_address, ["models:/doctogres@champion", "runs:/0/x", "C:/a", "a.png", ""]))
    check_usable("data", "memory://x")


def test_copies_that_nobody_asked_for_in_a_month_go(
    tmp_path: Path, store: MemoryFileSystem, fetched: list[str]
) -> None:
    old, kept = local(ADDRESS), local(f"{ADDRESS}/a.png")
    top, long_ago = tmp_path / "workspace" / FETCHED, time.time() - UNUSED - 1
    for path in [old.parent, *(top / KEPT).glob("*/*")]:
        os.utime(path, (long_ago, long_ago))
    store.pipe_file("/bucket/study/b.png", b"new")
    local(f"{ADDRESS}/b.png")
    assert not old.exists()
    assert kept.read_text() == "a.png"
    assert sorted(path.read_text() for path in (top / KEPT).glob("*/*")) == ["a.png", "new"]


def age(workspace: Path) -> None:
    """Lets all copies be as old as those that are removed."""
    long_ago = time.time() - UNUSED - 1
    for path in (workspace / FETCHED).rglob("*"):
        os.utime(path, (long_ago, long_ago))


def test_a_folder_that_grew_after_a_month_keeps_what_it_had(
    tmp_path: Path, store: MemoryFileSystem, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    local(ADDRESS)
    age(tmp_path / "workspace")
    store.pipe_file("/bucket/study/new.png", b"new.png")
    store.pipe_file("/bucket/other.png", b"other.png")
    get = MemoryFileSystem.get_file

    def beside_another_command(self: Any, place: str, *others: Any, **more: Any) -> None:
        if place == "/bucket/study/new.png":
            local("memory://bucket/other.png")
        get(self, place, *others, **more)

    monkeypatch.setattr(MemoryFileSystem, "get_file", beside_another_command)
    assert content(local(ADDRESS)) == {name: name for name in ("a.png", "b.png", "deep/er/c.png", "new.png")}
    assert fetched[3:] == ["/bucket/other.png", "/bucket/study/new.png"]


def test_what_another_command_removes_at_the_same_time_is_passed_over(tmp_path: Path, store: MemoryFileSystem) -> None:
    local(ADDRESS)
    top = tmp_path / "workspace" / FETCHED
    for gone in (top / "0123456789abcdef", next((top / KEPT).iterdir()) / "0123456789abcdef"):
        gone.symlink_to("nowhere")  # listed, and then not there
    store.pipe_file("/bucket/study/new.png", b"new.png")
    assert (local(ADDRESS) / "new.png").is_file()


@pytest.mark.parametrize("place", ["memory://bucket/out/x.csv", "out/x.csv"])
def test_an_output_replaces_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, store: MemoryFileSystem
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("old", "new"):
        (tmp_path / "x").write_text(text)
        send(tmp_path / "x", place)
        assert local(place).read_text() == text


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "said"), [("expired", "is refused"), ("gone", "cannot be reached")])
def test_an_output_that_a_bucket_does_not_take_leaves_what_was_there(tmp_path: Path, fault: str, said: str) -> None:
    (tmp_path / "x").write_text("old")
    with s3_server(tmp_path) as bucket, failing(bucket, "PUT", after=1, fault=fault) as proxy:
        once = {"AWS_ENDPOINT_URL": proxy.url, "AWS_MAX_ATTEMPTS": "1"}
        given = replace(bucket, environment=bucket.environment | once)
        with reaching(given, tmp_path):
            address = f"s3://{BUCKET}/out/x.csv"
            send(tmp_path / "x", address)
            (tmp_path / "x").write_text("new")
            with pytest.raises(RemoteError, match=f"{address} {said}"):
                send(tmp_path / "x", address)
            assert bucket.files.cat_file(address) == b"old"
            proxy.heal()
            send(tmp_path / "x", address)
            assert bucket.files.find(f"{BUCKET}/out") == [f"{BUCKET}/out/x.csv"]
            assert local(address).read_text() == "new"
