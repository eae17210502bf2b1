"""Ends when the database has the schema this MLflow expects. The migration Job makes it; a server must not race it.

Usage: wait_for_schema.py DATABASE_URI SECONDS.
"""

import logging
import sys
import time

from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _verify_schema, create_sqlalchemy_engine
from sqlalchemy.exc import SQLAlchemyError

logging.basicConfig(level=logging.INFO, format="%(message)s")
engine = create_sqlalchemy_engine(sys.argv[1])
deadline = time.monotonic() + float(sys.argv[2])
while True:
    try:
        _verify_schema(engine)
        break
    except (MlflowException, SQLAlchemyError) as error:
        if time.monotonic() > deadline:
            sys.exit(f"no schema after {sys.argv[2]} s: {error}")
        logging.info("waiting: %s", str(error).splitlines()[0])
        time.sleep(3)
