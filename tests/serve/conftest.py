"""Databases of both kinds for the tests of the server."""

import os

import pytest
from tests.serve.postgres import DEMAND, Cluster, binaries
from tests.serve.running import Running

from kinema.serve.store.database import Database, sqlite_url


@pytest.fixture(scope="session")
def postgres():
    if binaries() is None and not os.environ.get(DEMAND):
        pytest.skip(f"Postgres is not installed (apt-get install postgresql); {DEMAND}=1 makes this an error")
    cluster = Cluster()
    yield cluster
    cluster.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    """The address of an empty store on each kind of database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "kinema.db")
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture
def database(url):
    database = Database(url)
    yield database
    database.close()


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    """A server with one worker."""
    server = Running(tmp_path_factory.mktemp("server") / "data", "--precision", "fp32", "--rate", "100000")
    yield server
    assert server.stop() == 0
