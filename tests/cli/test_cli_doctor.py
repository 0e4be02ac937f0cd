import pytest

from kinema.cli import doctor
from kinema.cli.main import main


@pytest.mark.parametrize(
    "name", sorted(set(doctor.CHECKS) - {"packages"})
)  # packages fails where Kinema runs without being installed
def test_every_check_passes_here(name):
    state, line = doctor.CHECKS[name]()
    assert state in (doctor.OK, doctor.NOTE), line
    assert line
    assert "\n" not in line


def test_a_failed_check_is_named_and_makes_the_exit_code_1(monkeypatch, capsys):
    def broken():
        raise RuntimeError("no such\noperator")

    monkeypatch.setattr(doctor, "CHECKS", {"fine": lambda: (doctor.OK, "1.0"), "broken": broken})
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "ok    fine    1.0\n" in out
    assert "FAIL  broken  RuntimeError: no such operator\n" in out
    assert out.endswith("1 of 2 checks failed\n")


def test_a_missing_package_is_named_with_its_cure(monkeypatch):
    monkeypatch.setattr(
        doctor, "requires", lambda name: ["surely-absent>=2", "numpy>=1", "also-absent; extra == 'dev'"]
    )
    state, line = doctor.packages()
    assert state == doctor.FAIL
    assert line == "surely-absent missing: pip install surely-absent"


def test_another_torch_than_the_tested_one_is_noted(monkeypatch, tmp_path):
    (tmp_path / "constraints.txt").write_text("# why\ntorch==0.0.1\n")
    monkeypatch.setattr(doctor, "CONSTRAINTS", tmp_path / "constraints.txt")
    state, line = doctor.torch_pin()
    assert state == doctor.NOTE
    assert "0.0.1 is what is tested" in line


def test_a_torchvision_that_does_not_load_is_named_with_its_cure(monkeypatch, tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    state, line = doctor.torchvision()
    assert state == doctor.FAIL
    assert "pip uninstall torchvision" in line


def test_two_opencv_wheels_are_named(monkeypatch):
    wheels = [
        type("Distribution", (), {"name": name})
        for name in ("opencv-python", "opencv-python-headless", "numpy")
    ]
    monkeypatch.setattr(doctor, "distributions", lambda: wheels)
    state, line = doctor.opencv()
    assert state == doctor.FAIL
    assert line.startswith("opencv-python and opencv-python-headless overwrite each other")
