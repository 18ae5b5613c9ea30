"""Signed models: what was signed loads, anything else is refused where a public key is given."""

import base64
import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from doctogres.errors import DoctogresError
from doctogres.model.classifier import SlideClassifier
from doctogres.serving.loading import load_classifier
from doctogres.serving.pyfunc import SlideModel
from doctogres.serving.signing import PRIVATE_KEY, PUBLIC_KEY, SIGNATURE, SignatureError, sign_model
from doctogres.tracking.places import fetch

pytestmark = pytest.mark.slow
MODEL = """
import mlflow
class Named(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return ["answer"]
mlflow.models.set_model(Named())
"""


def write_keys(folder: Path, name: str) -> None:
    """NAME.pem and NAME.pub: a private key on an elliptic curve and its public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / f"{name}.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keys of ours, which both variables name, and of another."""
    for name in ("ours", "another"):
        write_keys(tmp_path, name)
    monkeypatch.setenv(PRIVATE_KEY, str(tmp_path / "ours.pem"))
    monkeypatch.setenv(PUBLIC_KEY, str(tmp_path / "ours.pub"))
    return tmp_path


@pytest.fixture
def model(store: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A logged model whose classifier is its file `weights`."""
    monkeypatch.setattr(SlideClassifier, "load", lambda folder: (folder / "weights").read_text())
    Path("classifier").mkdir()
    Path("classifier/weights").write_text("weights")
    Path("named.py").write_text(MODEL)
    with mlflow.start_run():
        return str(
            mlflow.pyfunc.log_model(
                name="model",
                python_model="named.py",
                artifacts={"classifier": "classifier"},
                pip_requirements=["mlflow"],
            ).model_uri
        )


def load_served(model: str) -> None:
    """Loads the model as a server does, which finds the classifier in the model's folder."""
    SlideModel().load_context(SimpleNamespace(artifacts={"classifier": str(fetch(model) / "artifacts/classifier")}))


def forged(signature: str, signed: bytes, planted: bytes) -> str:
    """The signature with the digest of a planted file in place of the signed one, as somebody without the key can write it."""
    content = json.loads(signature)
    payload = base64.b64decode(content["dsseEnvelope"]["payload"]).decode()
    before, after = (hashlib.sha256(file).hexdigest() for file in (signed, planted))
    assert before in payload
    content["dsseEnvelope"]["payload"] = base64.b64encode(payload.replace(before, after).encode()).decode()
    return json.dumps(content)


def test_what_was_signed_is_loaded_also_under_its_registered_name(keys: Path, model: str) -> None:
    sign_model(model)
    version = mlflow.register_model(model, "doctogres").version
    mlflow.pyfunc.load_model(f"models:/doctogres/{version}")  # MLflow writes the version into the model's folder
    cache = fetch(model) / "code/__pycache__"
    cache.mkdir(parents=True)
    (cache / "left.pyc").write_bytes(b"by a server that imported the code")
    for address in (model, f"models:/doctogres/{version}"):
        loaded: Any = load_classifier(address)
        assert loaded == "weights"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("artifacts/classifier/weights", "others"),
        ("MLmodel", "no: [yaml"),
        (".gitignore", "new"),
        ("conda.yaml", None),
    ],
)
def test_a_changed_added_or_removed_file_is_refused_and_named(
    keys: Path, model: str, file: str, content: str | None
) -> None:
    sign_model(model)
    path = fetch(model) / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(SignatureError, match=rf"(?s)model={model}: .*{file}.*do not use it") as refused:
        load_classifier(model)
    assert "digest" not in str(refused.value).lower()
    with pytest.raises(SignatureError, match="do not use it"):
        load_served(model)


def test_another_key_a_forged_and_a_missing_signature_are_refused(
    keys: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SignatureError, match=f"not signed, and {PUBLIC_KEY} requires it; `register` signs it"):
        load_classifier(model)
    sign_model(model)
    signature = fetch(model) / SIGNATURE
    signed = signature.read_text()
    for content in (forged(signed, b"weights", b"others"), "{}", "no JSON"):
        signature.write_text(content)
        with pytest.raises(SignatureError, match="do not use it"):
            load_classifier(model)
    signature.write_text(signed)
    load_classifier(model)
    monkeypatch.setenv(PUBLIC_KEY, str(keys / "another.pub"))
    with pytest.raises(SignatureError, match=r"Key mismatch.*do not use it"):
        load_classifier(model)


def test_without_a_key_nothing_is_signed_or_asked(store: Path, model: str) -> None:
    sign_model(model)
    assert not (fetch(model) / SIGNATURE).exists()
    load_classifier(model)


@pytest.mark.parametrize("content", [None, b"no key", "rsa"])
def test_a_file_that_is_no_key_is_refused(
    keys: Path, model: str, monkeypatch: pytest.MonkeyPatch, content: bytes | str | None
) -> None:
    path = keys / "key"
    if content == "rsa":
        key = rsa.generate_private_key(65537, 2048)
        content = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    if isinstance(content, bytes):
        path.write_bytes(content)
    for variable, use in ((PRIVATE_KEY, sign_model), (PUBLIC_KEY, load_classifier)):
        monkeypatch.setenv(variable, str(path))
        with pytest.raises(SignatureError, match=f"{variable}={path}: .*elliptic curve"):
            use(model)


def test_without_the_package_the_variable_and_the_remedy_are_named(
    keys: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_model(model)
    for name in ("signing", "verifying"):
        monkeypatch.setitem(sys.modules, f"model_signing.{name}", None)  # Python treats it as not installed
    for variable, use in ((PRIVATE_KEY, sign_model), (PUBLIC_KEY, load_classifier)):
        with pytest.raises(DoctogresError, match=rf"^{variable}: .*not installed.*pip install"):
            use(model)
