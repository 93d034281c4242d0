"""Each unit is done by one process, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from patchknn.jobs.claims import Claims, living_owners

_WORKER = """
import random, sys
from pathlib import Path
from patchknn.jobs.claims import Claims
folder, log, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
units = [f"slide {i}.svs" for i in range(40)]
random.Random(seed).shuffle(units)
print("ready", flush=True)
sys.stdin.readline()
with Claims(folder) as claims:
    for unit in units:
        if not claims.claim(unit):
            continue
        marker = log / unit
        if not marker.exists():
            working = log / f"{unit}.working"
            working.open("x").close()      # fails where another process is at it too
            for _ in range(random.randrange(2000)):
                pass
            working.unlink()
            marker.open("x").close()       # fails where it was done before
            print(unit, flush=True)
        claims.release(unit)
"""

_TAKER = """
import sys
from pathlib import Path
from patchknn.jobs.claims import Claims
claims = Claims(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(claims.claim("unit"), flush=True)
sys.stdin.readline()
claims.close()
"""

_VICTIM = """
import os, signal, sys
from pathlib import Path
from patchknn.jobs.claims import Claims
claims = Claims(Path(sys.argv[1]))
assert claims.claim("unit")
os.kill(os.getpid(), signal.SIGKILL)
"""


def _start(program, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_share_units_and_do_each_once(tmp_path):
    folder, log = tmp_path / "claims", tmp_path / "log"
    log.mkdir()
    processes = [_start(_WORKER, folder, log, seed) for seed in range(5)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    finished = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 5, finished
    done = [unit for out, _ in finished for unit in out.splitlines()]
    assert sorted(done) == sorted(f"slide {i}.svs" for i in range(40))
    assert not folder.exists()


def _race(folder, count=6):
    """How many of ``count`` processes that start together get the unit."""
    processes = [_start(_TAKER, folder) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [process.stdout.readline().strip() for process in processes]
    finally:
        for process in processes:
            process.communicate("end\n")
    assert set(answers) <= {"True", "False"}
    return answers.count("True")


def test_a_killed_process_is_succeeded_by_exactly_one(tmp_path):
    folder = tmp_path / "claims"
    for _ in range(3):
        victim = _start(_VICTIM, folder)
        victim.communicate()
        assert victim.returncode == -signal.SIGKILL
        assert len(list(folder.iterdir())) == 2  # the victim's identity and its claim
        assert _race(folder) == 1
        assert not folder.exists()


def _foreign_claim(folder, age):
    """A claim of a process on another node, last renewed ``age`` seconds ago."""
    with Claims(folder) as claims:
        claims.claim("unit")
        (link,) = [file for file in folder.iterdir() if file.name.endswith(".0")]
    folder.mkdir(exist_ok=True)
    holder = folder / "holder-elsewhere"
    identity = {"host": "elsewhere", "pid": "7", "node": "other boot", "started": "1", "token": "t"}
    holder.write_text(json.dumps(identity))
    os.link(holder, link)
    now = holder.stat().st_mtime
    os.utime(holder, (now - age, now - age))


def test_a_claim_of_another_node_holds_while_it_is_renewed(tmp_path):
    _foreign_claim(tmp_path / "claims", age=100)
    with Claims(tmp_path / "claims") as claims:
        assert not claims.claim("unit")
        assert claims.holder("unit") == "elsewhere, process 7"
        assert claims.claim("other unit")


def test_a_claim_that_is_no_longer_renewed_is_taken_over_once(tmp_path):
    _foreign_claim(tmp_path / "claims", age=130)
    assert _race(tmp_path / "claims") == 1


def test_a_clock_that_is_ahead_takes_nobody_for_dead(tmp_path, monkeypatch):
    _foreign_claim(tmp_path / "claims", age=100)
    later = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: later)
    assert living_owners(tmp_path / "claims", ["unit"])["unit"]["host"] == "elsewhere"
    with Claims(tmp_path / "claims") as claims:
        assert claims.claim("other unit")
    assert (tmp_path / "claims" / "holder-elsewhere").exists()


def test_the_heartbeat_renews_every_claim(tmp_path):
    with Claims(tmp_path / "claims", stale_after=0.2) as claims:
        claims.claim("a")
        claims.claim("b")
        files = list((tmp_path / "claims").iterdir())
        for file in files:
            os.utime(file, (0, 0))
        beat = claims._closed
        while any(file.stat().st_mtime == 0 for file in files):
            assert not beat.wait(0.01)


def test_who_was_outbid_knows_it(tmp_path):
    folder = tmp_path / "claims"
    with Claims(folder) as slow, Claims(folder) as fast:
        assert slow.claim("unit")
        assert slow.holds("unit")
        holder = next(folder.glob("holder-*"))
        identity = json.loads(holder.read_text()) | {"node": "other boot"}
        holder.write_text(json.dumps(identity))
        os.utime(holder, (0, 0))
        assert fast.claim("unit")
        assert not slow.holds("unit")
        assert fast.holds("unit")
        slow.release("unit")
        assert fast.holds("unit")
        assert not slow.claim("unit")


def test_releasing_and_closing_leave_nothing(tmp_path):
    folder = tmp_path / "out" / ".claims"
    with Claims(folder) as claims:
        assert not folder.exists()
        assert claims.claim("a/b é😐.svs" * 40)
        assert claims.claim("a/b é😐.svs" * 40)
        claims.release("never held")
        assert claims.holder("nobody's") is None
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"pid": 1}'])
def test_a_claim_that_cannot_be_read_is_judged_by_its_age(tmp_path, damage):
    _foreign_claim(tmp_path / "claims", age=0)
    holder = tmp_path / "claims" / "holder-elsewhere"
    holder.write_text(damage)
    with Claims(tmp_path / "claims") as claims:
        assert not claims.claim("unit")
        os.utime(holder, (0, 0))
        assert claims.claim("unit")


def test_a_signal_between_linking_and_noting_leaves_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "claims"
    link = os.link

    def interrupted(source, target):
        link(source, target)
        raise KeyboardInterrupt

    with Claims(folder) as claims:
        assert claims.claim("first")
        monkeypatch.setattr(os, "link", interrupted)
        with pytest.raises(KeyboardInterrupt):
            claims.claim("second")
    assert not folder.exists()


def test_a_full_disk_names_the_folder(tmp_path, little_room):
    with (
        Claims(tmp_path / "claims") as claims,
        little_room(10),
        pytest.raises(OSError, match="File too large") as caught,
    ):
        claims.claim("a")
    assert caught.value.filename == str(tmp_path / "claims")
    assert not (tmp_path / "claims").exists()
