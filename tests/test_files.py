import os

import pytest
from safetensors import SafetensorError

from kinema.errors import DataError, ModelError, OutputError
from kinema.files import (
    atomic_file,
    atomic_folder,
    content_key,
    folder_lock,
    output_errors,
    read_json,
    sha256_of,
    write_json,
)


def test_a_file_appears_when_the_body_ends(tmp_path):
    path = tmp_path / "new" / "file"
    with atomic_file(path) as partial:
        partial.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_body_leaves_the_file_unchanged(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic_file(path) as partial:  # noqa: PT012
        partial.write_text("new")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_only_a_folder_with_its_mark(tmp_path):
    folder = tmp_path / "model"
    for text in ("first", "second"):
        with atomic_folder(folder, "mark") as partial:
            (partial / "mark").write_text(text)
        assert (folder / "mark").read_text() == text
    assert list(tmp_path.iterdir()) == [folder]

    (folder / "mark").unlink()
    (folder / "photo").write_text("not Kinema's")
    with pytest.raises(OutputError, match="in the way"), atomic_folder(folder, "mark"):
        pass
    assert (folder / "photo").exists()


def test_a_failed_body_leaves_the_folder_unchanged(tmp_path):
    folder = tmp_path / "model"
    with atomic_folder(folder, "mark") as partial:
        (partial / "mark").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder, "mark") as partial:  # noqa: PT012
        (partial / "mark").write_text("new")
        raise KeyboardInterrupt
    assert (folder / "mark").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_moved_aside_by_a_killed_process_is_restored(tmp_path):
    folder = tmp_path / "model"
    with atomic_folder(folder, "mark") as partial:
        (partial / "mark").write_text("old")
    os.replace(folder, tmp_path / ".model.old")
    (tmp_path / ".model.partial").mkdir()
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder, "mark"):
        raise KeyboardInterrupt
    assert (folder / "mark").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("full")])
def test_a_failed_write_names_the_path(tmp_path, error):
    with pytest.raises(OutputError, match=f"cannot write {tmp_path}: .*full"), output_errors(tmp_path):
        raise error


def test_json_is_read_as_written(tmp_path):
    values = {"b": [1, 2.5, None], "a": {"text": "ä 视频"}}
    write_json(tmp_path / "file.json", values)
    assert read_json(tmp_path / "file.json") == values
    assert "视频" in (tmp_path / "file.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"), [(None, "is missing"), ("[]", "does not hold a JSON object"), ("{", "Expecting")]
)
def test_what_is_not_a_json_object_is_an_error_of_the_given_class(tmp_path, text, message):
    file = tmp_path / "file.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ModelError, match=message):
        read_json(file)
    with pytest.raises(DataError, match=message):
        read_json(file, DataError)


def test_hashes_are_those_of_version_0_1_0(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert content_key(["a", 1, {"y": 2, "x": None}]) == content_key(["a", 1, {"x": None, "y": 2}])
    assert content_key(["mix", 0, "clip"]) == "f529f993a3188e4c4f5f83b5b52acf62"


def test_a_folder_has_one_lock_and_loses_partial_files(tmp_path):
    folder = tmp_path / "new"
    with folder_lock(folder, DataError("busy")):
        (folder / ".kinema-1.partial").touch()
        with pytest.raises(DataError, match="busy"), folder_lock(folder, DataError("busy")):
            pass
    with folder_lock(folder, DataError("busy")):
        assert not list(folder.glob("*.partial"))
