"""A password in an address is refused, and nothing shows it."""

import pytest

from doctogres.addresses import VARIABLES, check_address, check_environment, masked
from doctogres.errors import ParameterError

HELD = [
    ("postgresql://me:hunter@host/db", "postgresql://me:***@host/db", "PGPASSWORD"),
    ("postgresql+psycopg://me:hunter@host/db", "postgresql+psycopg://me:***@host/db", "~/.pgpass"),
    ("postgresql://me:hun@te/r?#1@host/db", "postgresql://me:***@host/db", "PGSERVICEFILE"),
    ("postgresql://me:hun te/r@host/db", "postgresql://me:***@host/db", "PGPASSWORD"),
    ("postgresql://:hunter@host/db", "postgresql://:***@host/db", "PGPASSWORD"),
    ("postgresql://me@host/db?password=hunter", "postgresql://me@host/db?password=***", "PGPASSWORD"),
    (
        "postgresql:///db?host=/run&sslpassword=hunter&x=1",
        "postgresql:///db?host=/run&sslpassword=***&x=1",
        "PGPASSWORD",
    ),
    ("postgresql:///db?p%61ssword=hunter", "postgresql:///db?password=***", "PGPASSWORD"),
    ("host=/run user=me password=hunter", "host=/run user=me password=***", "outside"),
    ("mysql://me:hunter@host/db", "mysql://me:***@host/db", "outside"),
    ("http://me:hunter@host:5000", "http://me:***@host:5000", "MLFLOW_TRACKING_PASSWORD"),
    ("HTTPS://hunter@host", "HTTPS://***@host", "MLFLOW_TRACKING_PASSWORD"),
    ("https://host/x?access_token=hunter", "https://host/x?access_token=***", "MLFLOW_TRACKING_PASSWORD"),
    ("s3://key:hunter@bucket/folder", "s3://key:***@bucket/folder", "AWS_SECRET_ACCESS_KEY"),
    ("s3://key:hun/ter+@bucket/folder", "s3://key:***@bucket/folder", "~/.aws/credentials"),
]
FREE = [
    "postgresql://me@host:5432/db", "postgresql://me:@host/db", "postgresql:///?service=study", "postgresql://me@/db?host=/run",
    "postgresql:///db?passfile=/home/me/.pgpass", "sqlite:////home/me@host/a:b/optuna.db", "http://host:5000/a@b", "http://host/a@b",
    "s3://bucket/a@b", "models:/doctogres@champion", "models:/doctogres/1", "runs:/0123/patches.parquet", "C:/data/me@host", "latest",
]  # fmt: skip


@pytest.mark.parametrize(("address", "shown", "remedy"), HELD)
def test_a_password_is_refused_with_the_place_where_it_belongs(address: str, shown: str, remedy: str) -> None:
    with pytest.raises(ParameterError) as error:
        check_address("storage", address)
    said = str(error.value)
    assert said.startswith(f"storage={shown}: a password in an address")
    assert remedy in said
    assert not any(part in said for part in ("hun", "te/r", "ter+", "\n"))


@pytest.mark.parametrize("address", FREE)
def test_an_address_without_a_password_passes_and_is_shown_as_it_is(address: str) -> None:
    check_address("storage", address)
    assert masked(address) == address


def test_addresses_in_a_sentence_are_masked() -> None:
    text = "cannot reach postgresql://me:hunter@host/db (see http://hunter@host/x), nor s3://key:hunter@bucket"
    assert "hunter" not in masked(text)
    assert masked(masked(text)) == masked(text)
    assert masked(text).startswith("cannot reach postgresql://me:***@host/db (see ")


@pytest.mark.parametrize("name", VARIABLES)
def test_the_environment_is_checked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_environment()
    monkeypatch.setenv(name, "http://me:hunter@host")
    with pytest.raises(ParameterError, match=f"^{name}=http://me:[*]"):
        check_environment()
