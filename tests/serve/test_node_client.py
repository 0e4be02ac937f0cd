"""All video operations as the official node client sends them."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGE = "openai@6.49.0"
DEMAND = "KINEMA_NEED_NODE"
"""With this environment variable, the test fails without node and its package instead of being skipped."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    if shutil.which("npm") is None:
        assert not os.environ.get(DEMAND)
        pytest.skip("npm is not installed")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    if done.returncode:
        assert not os.environ.get(DEMAND), done.stderr
        pytest.skip(f"npm cannot install {PACKAGE}: {done.stderr.splitlines()[-1:]}")
    shutil.copy(Path(__file__).parent / "node_client.mjs", folder)
    return folder


def test_all_operations(folder, running):
    first = running.ended(running.create()["id"])
    command = ["node", str(folder / "node_client.mjs"), f"{running.url}/v1", first["id"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["name"], found["deleted"]["object"]) == ("Pip", "video.deleted")
    assert found["size"] > 1000
    assert found["listed"] >= 6
    for name in ("picture", "edit", "extend", "remix"):
        ended = running.ended(found["ids"][name])
        assert ended["status"] == "completed", ended
