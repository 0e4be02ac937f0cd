import shutil

from kinema.checkpoints.components import load_backbone
from kinema.checkpoints.manifest import model_hash
from kinema.cli.main import main


def test_inspect_tells_what_a_model_is(model_folder, capsys):
    assert main(["models", "inspect", str(model_folder)]) == 0
    out = capsys.readouterr().out
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert rows["model"] == f"tiny, {model_hash(model_folder)}"
    assert rows["licence"] == "Apache-2.0"
    assert rows["sizes"] == "width and height 32 to 128 pixels in steps of 16; default 48x32"
    assert rows["lengths"] == "1 to 17 frames, up to 2.12 s at 8 fps; default 9 frames"
    num_parameters = sum(p.numel() for p in load_backbone(model_folder).parameters())
    assert rows["transformer/"].startswith(f"{num_parameters / 1e6:.2f} million parameters")
    assert {"vae/", "text_encoder/"} <= set(rows)
    assert "transformer/config.json" in rows


def test_verify_reads_every_file(model_folder, capsys):
    assert main(["models", "verify", str(model_folder)]) == 0
    assert f"files as they were written, model {model_hash(model_folder)}" in capsys.readouterr().out


def test_verify_names_a_file_that_has_changed(model_folder, tmp_path, capsys):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    with (copy / "vae" / "config.json").open("a") as file:
        file.write(" ")
    assert main(["models", "verify", str(copy)]) == 2
    assert "changed: vae/config.json" in capsys.readouterr().err


def test_inspect_names_a_file_that_is_cut_off(model_folder, tmp_path, capsys):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    file = next((copy / "vae").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    assert main(["models", "inspect", str(copy)]) == 2
    assert f"{file} is truncated or damaged" in capsys.readouterr().err


def test_a_folder_that_is_no_model_is_one_line(tmp_path, capsys):
    assert main(["models", "inspect", str(tmp_path)]) == 2
    assert "is not a model folder" in capsys.readouterr().err
