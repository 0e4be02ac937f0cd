"""The folder of an evaluation: it belongs to one model and one way of sampling, and another is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinema.errors import OutputError
from kinema.files import read_json, write_json


def claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder that of these settings. Raises `OutputError` for one that is another's, or that cannot be written."""
    file = out / "settings.json"
    if file.exists():
        try:
            before = read_json(file, OutputError)
        except OutputError as error:
            raise OutputError(f"{error}: use another --out") from None
        different = [
            key
            for key in {**before, **settings}
            if before.get(key) != json.loads(json.dumps(settings.get(key)))
        ]
        if different:
            raise OutputError(
                f"{out} holds an evaluation of another {' and '.join(different)}: use another --out"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is in the way: it is not the folder of an evaluation")
    write_json(file, settings)
