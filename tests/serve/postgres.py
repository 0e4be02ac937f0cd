"""A private Postgres cluster for tests, in a temporary folder, reachable by a socket only."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

DEMAND = "KINEMA_NEED_POSTGRES"
"""With this environment variable, tests fail without Postgres instead of being skipped."""


def binaries() -> Path | None:
    """The folder of Postgres' programs, or None."""
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.get_exec_path())]
    return next(
        (folder for folder in folders if all((folder / p).exists() for p in ("initdb", "postgres"))), None
    )


class Cluster:
    """A running server. As root its processes run as the user `postgres`, because Postgres refuses root."""

    def __init__(self) -> None:
        found = binaries()
        assert found is not None, f"no Postgres here, and {DEMAND} asks for it"
        self.bin = found
        self.user = "postgres" if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="kinema-pg-"))
        if self.user:
            shutil.chown(self.folder, self.user)
        self._run("initdb", "-D", str(self.folder / "data"), "-A", "trust", "-U", "kinema", "--no-sync")
        self.start()
        self.num_databases = 0

    def _run(self, program: str, *words: str) -> None:
        command = [str(self.bin / program), *words]
        subprocess.run(
            command, check=True, user=self.user, cwd=self.folder, stdout=subprocess.DEVNULL, timeout=60
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [str(self.bin / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "-c", "listen_addresses=", "-c", "max_connections=200"],
                user=self.user,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        for _ in range(200):
            try:
                psycopg.connect(self.url("postgres").replace("+psycopg", "")).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise RuntimeError((self.folder / "log").read_text())

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server; "immediate" is a crash."""
        self._run("pg_ctl", "stop", "-D", str(self.folder / "data"), "-m", mode)
        self.process.wait(30)

    def url(self, name: str) -> str:
        """The address of a database."""
        return f"postgresql://kinema@/{name}?host={self.folder}"

    def new_database(self) -> str:
        """The address of a new, empty database."""
        self.num_databases += 1
        name = f"test_{self.num_databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def remove(self) -> None:
        """Stop the server and delete its files."""
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
