"""Parameters that MLflow has recorded although they hold a password."""

from mlflow.exceptions import MlflowException
from mlflow.store.tracking.dbmodels.models import SqlParam
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from sqlalchemy import text

from doctogres.addresses import without_password


def hide_passwords(run_id: str) -> bool:
    """Masks the passwords in a run's parameters, which `mlflow run` recorded before any code of ours; whether it could.

    MLflow's API cannot change a parameter, so this works on a store that is a database, not on a server.
    """
    store = MlflowClient()._tracking_client.store
    if not isinstance(store, SqlAlchemyStore):
        return False
    try:
        with store.ManagedSessionMaker(read_only=False) as session:
            if store.db_type == "sqlite":
                session.execute(text("PRAGMA secure_delete = ON"))  # else the old text stays in the file
            for parameter in session.query(SqlParam).filter_by(run_uuid=run_id):
                parameter.value = without_password(parameter.value)
    except MlflowException:
        return False
    return True
