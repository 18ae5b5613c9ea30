"""Every command in README.md, CONTRIBUTING.md, docs/ and the notebook would be taken by the program that it calls."""

import json
import re
from pathlib import Path
from typing import Final

import pytest

from tests import documents
from tests.accepted import Refused, check
from tests.documents import NOT_COMMANDS, PAGES, Block, as_form, blocks, commands, inline, shown
from tests.servers import ROOT
from tests.templates import templates

VALUES: Final = {
    "ENTRY_POINT": "main",
    "name=value": "seed=7",
    " IMAGE": " README.md",
    " MASK": " README.md",
    "SECONDS": "60",
}
# What pages show besides commands, by its first words: what `ran` prints when the page's commands are run, what is `said` by
# the code in a case that they do not bring about (test_documents_run.py compares both), or the text of a `file`.
SHOWN: Final = {
    "README.md": {"model doctogres-demo": "ran"},
    "CONTRIBUTING.md": {"The gate names": "file"},
    "docs/index.md": {"model doctogres-demo": "ran"},
    "docs/operations.md": {"INFO: request": "said", "monitor: alarm:": "said"},
    "docs/registry.md": {
        "... was not": "said",
        "... is doctogres-demo version 2": "said",
        "register: evaluating": "said",
        "register: doctogres": "said",
        "... is doctogres-demo version 4": "ran",
        "promote: champion": "ran",
        "register: decision": "said",
    },
    "docs/serving.md": {"slide img_0005": "ran"},
    "docs/storage.md": {"patches: 1 of": "said", "clean-cache: /data": "ran"},
    "docs/team-server.md": {"[mlflow]": "file"},
    "docs/training.md": {"train: reusing": "ran"},
    "docs/your-data.md": {"init: slides": "ran"},
}


def texts_of(page: Path) -> list[str]:
    """What a page's blocks show besides commands."""
    found = [text for block in blocks(page) for text in (shown(block), *(each.shown for each in commands(block)))]
    return [text for text in found if text.strip()]


def shown_by(page: Path, kind: str) -> list[str]:
    """Those of a kind."""
    known = SHOWN.get(page.relative_to(ROOT).as_posix(), {})
    begins = tuple(words for words, its_kind in known.items() if its_kind == kind)
    return [text for text in texts_of(page) if " ".join(text.split()).startswith(begins)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_would_be_taken(page: Path) -> None:
    for command in [each.text for block in blocks(page) for each in commands(block)] + inline(page):
        for placeholder, value in VALUES.items():
            command = command.replace(placeholder, value)
        check(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_other_line_of_a_block_is_known(page: Path) -> None:
    known = SHOWN.get(page.relative_to(ROOT).as_posix(), {})
    texts = [" ".join(text.split()) for text in texts_of(page)]
    assert [text for text in texts if not text.startswith(tuple(known))] == []
    assert [words for words in known if not any(text.startswith(words) for text in texts)] == []


@pytest.mark.parametrize("page", [ROOT / name for name in SHOWN], ids=lambda page: page.stem)
def test_what_is_not_printed_here_is_said_by_the_code(page: Path) -> None:
    code = "\n".join(templates())
    for text in shown_by(page, "said"):
        parts = [
            part.strip()
            for part in re.split(
                r"N\b|CLASS|PATH|\.\.\.|\w*:|[][;,()]|because it|(?<= )\w+(?== )|hold-out"
                r"|doctogres(?:-demo)?(?= version)|(?:former-)?champion",
                as_form(text),
            )
        ]
        sentences = [part for part in parts if len(part.split()) > 2]
        assert sentences
        assert [part for part in sentences if part not in code] == []


def test_the_pages_have_commands_of_every_kind() -> None:
    first = {each.text.split()[0] for page in PAGES for block in blocks(page) for each in commands(block)}
    assert {"mlflow", "make", "python", "curl", "export", "docker", "srun", "for", "printf"} <= first
    languages = {block.language for page in PAGES for block in blocks(page)}
    assert languages == {"", "python", *NOT_COMMANDS}


@pytest.mark.parametrize(
    "wrong",
    [
        "mlflow run . -e cleen --env-manager local",
        "mlflow run . -e train --env-manager local -P epochz=3",
        "mlflow run . -e train --env-manager local -P epochs=0",
        "mlflow run . -e register -P promote=always",
        "mlflow run . --env-manager conda_",
        "mlflow run -e train",
        "mlflow models serf --model-uri models:/doctogres@champion",
        "mlflow server --backend-store sqlite:///server.db",
        "make demoo",
        "make serve MODLE=doctogres-demo",
        "python -m doctogres.client --slide img_0000.png",
        "python -m doctogres.server",
        "python -m benchmarks.recipes COHORT --weight FILE",
        "python -m pytest tests/test_nothing.py",
        "python -m entrypoints.clean --shards 1/8",
        "doctogres cleen --data FOLDER",
        "torchrun --nproc-per-node 2 -m entrypoints.train --epoch 6",
        "seq 8 | parallel python -m entrypoints.clean --share {}/8",
        "curl http://127.0.0.1:5001/invocation -d @-",
        "pip install s3sf",
        "DOCTOGRES_ANSWERLOG=answers make serve",
        "export MLFLOW_TRACKING_URL=sqlite:///mlflow.db",
        "docker build -f container/dockerfile .",
        "docker build -f container/Dockerfile --build-arg TORCH=ADDRESS .",
        "./start",
        "cp src/doctogres/presets/demos.yaml mine.yaml",
        "rm -r data",
    ],
)
def test_a_command_that_would_not_be_taken_is_found(wrong: str) -> None:
    with pytest.raises(Refused):
        check(wrong)


def test_python_that_is_none_is_found() -> None:
    with pytest.raises(SyntaxError):
        check("python - <<'END'\nprint(\nEND\n")


def page_with(folder: Path, text: str, patcher: pytest.MonkeyPatch) -> list[Block]:
    patcher.setattr(documents, "ROOT", folder)
    (folder / "page.md").write_text(text, "utf-8")
    return list(blocks(folder / "page.md"))


def test_commands_span_lines_and_have_what_is_shown_below_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """# Page

    export A=1    # a comment
    printf a \\
        b |
    curl http://127.0.0.1:5001/ping
    {"answer": 1}

    python - <<'END'
    print("make")

    print("demo")
    END

More.

```python
import this
```

    for i in 1 2; do
      echo $i &
    done; wait

- a list

    rm -r data
"""
    found = page_with(tmp_path, text, monkeypatch)
    assert [block.line for block in found] == [3, 17, 21, 27]
    assert [command.text for block in found for command in commands(block)] == [
        "export A=1    # a comment",
        "printf a \\\n    b |\ncurl http://127.0.0.1:5001/ping",
        'python - <<\'END\'\nprint("make")\n\nprint("demo")\nEND',
        "python - <<'PYTHON'\nimport this\nPYTHON\n",
        "for i in 1 2; do\n  echo $i &\ndone; wait",
    ]
    assert commands(found[0])[1].shown == '{"answer": 1}'
    assert re.sub(r"\s", "", shown(found[-1])) == "rm-rdata", "a program that no check knows is not passed over"


def test_the_commands_of_the_notebook_would_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = json.loads((ROOT / "notebooks/champion.ipynb").read_text("utf-8"))["cells"]
    text = "".join("".join(cell["source"]) + "\n\n" for cell in cells if cell["cell_type"] == "markdown")
    found = [command.text for block in page_with(tmp_path, text, monkeypatch) for command in commands(block)]
    found += inline(tmp_path / "page.md")
    assert {"make demo", "mlflow run . -e train --env-manager local -P recipe=probe"} <= set(found)
    for command in found:
        check(command)
    code = "".join(line for cell in cells if cell["cell_type"] == "code" for line in cell["source"])
    assert "mlflow run" not in code, "commands are in text cells, where they are checked"
