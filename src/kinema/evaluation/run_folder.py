"""The folder of an evaluation: it belongs to one model and one way of sampling, and another is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinema.errors import OutputError
from kinema.files import atomic_output


def claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder that of these settings. Raises `OutputError` for one that is another's, or that cannot be written."""
    file = out / "settings.json"
    if file.exists():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise OutputError(f"{file} cannot be read ({error}): use another --out") from None
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


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write plain values, whole or not at all."""
    with atomic_output(file) as partial:
        partial.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
