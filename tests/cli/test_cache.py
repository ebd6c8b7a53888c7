"""`fastgrad cache`: what it says of a folder, sound, damaged, missing or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastgrad.cli import main
from fastgrad.codegen.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Three entries in the default folder."""
    monkeypatch.setenv("FASTGRAD_CACHE_DIR", str(tmp_path / "cache"))
    store = Store(tmp_path / "cache")
    for i in range(3):
        meta = {"toolchain": "t", "fastgrad": "0.1.0", "numba": "0.68", "llvmlite": "0.50", "cpu": "znver4"}
        store.put(f"{i:064x}", meta, bytes(1000))
    return store


def said(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> dict:
    assert main(["cache", *args, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_info(store: Store, capsys: pytest.CaptureFixture[str]):
    info = said(capsys, "info")
    assert info["entries"] == 3 and info["bytes"] == sum(s.st_size for _, s in store.files())
    assert info["toolchains"] == {"fastgrad 0.1.0, numba 0.68, llvmlite 0.50, znver4": 3}
    assert main(["cache", "info"]) == 0
    text = capsys.readouterr().out
    assert str(store.folder) in text and "znver4: 3" in text


def test_verify_names_what_is_damaged(store: Store, capsys: pytest.CaptureFixture[str]):
    assert said(capsys, "verify")["damaged"] == {}
    store.path(f"{1:064x}").write_bytes(b"")
    assert said(capsys, "verify", code=1)["damaged"] == {f"{1:064x}.code": "its file is empty"}
    assert said(capsys, "info")["toolchains"]["damaged"] == 1


def test_clear_deletes_what_is_ours_alone(store: Store, capsys: pytest.CaptureFixture[str]):
    (store.folder / "notes.code").write_text("mine")
    (store.folder / f".{1:064x}.code.1.2.tmp").write_text("left behind")
    assert said(capsys, "clear")["deleted"] == 3
    assert sorted(p.name for p in store.folder.iterdir()) == [".write.lock", "notes.code"]
    assert said(capsys, "clear")["deleted"] == 0


def test_missing_folder_is_empty_and_stays_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "none"
    for action in ("info", "verify"):
        assert said(capsys, action, "--dir", str(folder))["entries"] == 0
    assert said(capsys, "clear", "--dir", str(folder))["deleted"] == 0
    assert not folder.exists()


def test_folder_of_others_is_told_and_not_cleared(store: Store, capsys: pytest.CaptureFixture[str]):
    store.folder.chmod(0o777)
    with pytest.warns(UserWarning, match="chmod"):
        assert "may be written to by other users" in said(capsys, "info")["used"]
    assert main(["cache", "clear"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    store.folder.chmod(0o700)
    assert said(capsys, "verify")["entries"] == 3


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["polish"], "invalid choice: 'polish'"),
        ([], "required: action"),
        (["info", "--dir", __file__], "not a folder"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], args: list[str], part: str):
    assert main(["cache", *args]) == 2
    captured = capsys.readouterr()
    assert part in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_cache_that_is_off(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("FASTGRAD_CACHE_DIR", "off")
    assert main(["cache", "info"]) == 2
    assert "the cache is off" in capsys.readouterr().err
