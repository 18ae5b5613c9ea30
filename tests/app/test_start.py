"""How the page starts."""

import copy
import subprocess
import sys

import pytest

from doctogres.app.__main__ import main
from tests.servers import ROOT


def test_without_streamlit_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["doctogres.app"])
    monkeypatch.setitem(sys.modules, "streamlit", None)
    assert main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("pip install -r requirements-app.txt")
    assert (ROOT / "requirements-app.txt").is_file()


def test_an_address_with_a_password_is_refused_before_the_page_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["doctogres.app", "--url", "http://user:secret@127.0.0.1:5001"])
    assert main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("doctogres.app: error: url")
    assert "secret" not in line


@pytest.mark.slow
def test_uploads_are_not_copied_when_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import streamlit
    from streamlit.proto.Common_pb2 import FileURLs
    from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

    monkeypatch.setattr(sys, "argv", ["doctogres.app"])
    monkeypatch.setattr(streamlit.App, "run", lambda *_, **__: None)
    assert main() == 0
    record = UploadedFileRec("1", "a.png", "image/png", bytes(1000))
    assert copy.deepcopy(UploadedFile(record, FileURLs())).getvalue() is record.data


def test_the_page_has_nothing_to_load_a_model_with() -> None:
    page = (ROOT / "src/doctogres/app/page.py").read_text(encoding="utf-8")
    imports = "\n".join(line for line in page.splitlines() if line.startswith(("import ", "from ")))
    code = f"{imports}\nimport sys; print(sorted({{'torch', 'timm', 'mlflow', 'safetensors'}} & sys.modules.keys()))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
