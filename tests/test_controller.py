from __future__ import annotations

import os
import subprocess
import sys

from conftest import ROOT

from lib.controller import controller_is_gone, note_controller
from lib.files import read_json, write_json


def test_only_a_dead_process_of_this_machine_is_gone_for_sure(tmp_path):
    note = tmp_path / "controller.json"
    assert not controller_is_gone(note), "no note"
    note_controller(note)
    assert not controller_is_gone(note), "this process lives"
    mine = read_json(note)
    write_json(note, mine | {"since": mine["since"] - 100})
    assert controller_is_gone(note), "another process has its number now"
    write_json(note, mine | {"host": "another", "pid": 2**22 + 1})
    assert not controller_is_gone(note)


def test_a_killed_process_is_gone(tmp_path):
    program = f"import sys, time; sys.path.insert(0, {str(ROOT / 'workflow/scripts')!r})\n"
    program += "from lib.controller import note_controller; note_controller('note.json'); print(); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-uc", program], cwd=tmp_path, stdout=subprocess.PIPE)
    process.stdout.readline()
    assert not controller_is_gone(tmp_path / "note.json")
    os.kill(process.pid, 9)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has asked how it ended
    assert controller_is_gone(tmp_path / "note.json")
    process.wait()
    assert controller_is_gone(tmp_path / "note.json")
