from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT

from lib.files import HOST, atomic, read_json, write_json, write_table


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic(target) as temporary:
        assert temporary.suffix == ".csv"
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    target = tmp_path / "new" / "store"
    for text in ("first", "second"):
        with atomic(target) as temporary:
            temporary.mkdir()
            (temporary / f"{text}.txt").write_text(text)
    assert [p.name for p in target.iterdir()] == ["second.txt"]
    assert [p.name for p in target.parent.iterdir()] == ["store"]


def test_the_next_write_removes_what_a_killed_process_left(tmp_path):
    target, other = tmp_path / "store[1]", tmp_path / "2.store"
    program = "import os, sys; sys.path.insert(0, sys.argv[1]); from lib.files import atomic\n"
    program += "for path in sys.argv[2:]:\n    temporary = atomic(path).__enter__(); temporary.mkdir(); (temporary / 'a').touch()\n"
    program += "os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", program, str(ROOT / "workflow/scripts"), str(target), str(other)])
    assert len(list(tmp_path.iterdir())) == 2
    alive, elsewhere = tmp_path / f".{os.getppid()}@{HOST}.store[1]", tmp_path / ".1@another.store[1]"
    alive.mkdir()
    elsewhere.mkdir()
    with atomic(target) as temporary:
        temporary.touch()
    assert target.is_file() and alive.exists() and elsewhere.exists()
    assert [p for p in tmp_path.glob(".*") if p not in (alive, elsewhere)] == list(tmp_path.glob(".*@*.2.store"))


def test_json_round_trip_and_a_corrupt_file_names_itself(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, None]})
    assert read_json(tmp_path / "a.json") == {"x": [1, None]}
    (tmp_path / "a.json").write_text('{"x": [1,')
    with pytest.raises(ValueError, match=r"a.json is not valid JSON .* delete it"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "b.json", {"x": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_table(tmp_path):
    write_table(tmp_path / "t.csv", pd.DataFrame({"a": [1], "b": ["x,y"]}))
    assert (tmp_path / "t.csv").read_text() == 'a,b\n1,"x,y"\n'
