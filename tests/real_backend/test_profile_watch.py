"""Who failed first, who does not move on, and why a process has no hooks; processes are short ones of Python alone."""

from __future__ import annotations

import json
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coordsim.cli.training import Done
from coordsim.record.ranks import read_rank
from real_backend.profile import WANTED
from real_backend.profile.launch import RECORDED, SITE
from real_backend.profile.lives import LIVES
from real_backend.profile.presence import Presence, Seen, Stage, seen
from real_backend.profile.unhooked import reason
from real_backend.profile.watch import STALL_S, Ending, Watch, at_places, first_failure, ranks_words
from real_backend.stream import RankStream, Writer

# Who failed first.


def failed(rank: int, at: int, how: str = "exception", text: str = "ValueError: planted", **more: int) -> Ending:
    return Ending(rank, 100 + rank, at, how, text=text, **more)


GLOO = "RuntimeError: [../pair.cc:534] Connection closed by peer [127.0.0.1]:1234"
NCCL = "DistBackendError: NCCL communicator was aborted on rank 0"


@pytest.mark.parametrize(
    ("endings", "rank"),
    [
        ([failed(0, 20), failed(1, 10)], 1),
        ([failed(0, 10, text=GLOO), failed(1, 20)], 1),
        ([failed(0, 10, text=NCCL), failed(1, 20, "sys.exit", "", code=5)], 1),
        ([failed(0, 10, text=GLOO), failed(1, 20, "signal", "", signal=9), failed(2, 5, text=GLOO)], 1),
        ([failed(0, 10, "signal", "", signal=15), failed(1, 20, "os._exit", "", code=7)], 1),
        ([failed(0, 20, text=GLOO), failed(1, 10, text=GLOO)], 1),
        ([failed(0, 10, "exit", "", code=0), failed(1, 30, "signal", "", signal=11)], 1),
        ([failed(0, 10, "signal", "", signal=15), failed(1, 20, "unknown", "")], 1),
    ],
    ids=["earlier", "gloo", "nccl", "killed", "launcher", "victims alone", "others ended well", "without a word"],
)  # fmt: skip
def test_the_first_to_fail_is_named_rather_than_its_victims(endings: list[Ending], rank: int) -> None:
    first = first_failure(endings)
    assert first is not None
    assert first.rank == rank


def test_nobody_failed_where_all_ended_well() -> None:
    assert first_failure([failed(0, 1, "exit", "", code=0)]) is None


def test_the_line_says_who_how_where_and_whom_it_brought_down() -> None:
    endings = [
        Ending(0, 10, 20, "exception", 1, None, "RuntimeError: Connection closed by peer", "step 12, backward"),
        Ending(1, 11, 10, "sys.exit", 5, None, "", "step 12, input"),
    ]
    done = Done(code=1, endings=endings, first=first_failure(endings))
    assert done.line("torchrun") == (
        "rank 1 failed first: it called sys.exit(5) in step 12, input; "
        "after it rank 0 raised RuntimeError: Connection closed by peer"
    )


def test_a_killed_launcher_is_named_with_the_ranks_that_still_run() -> None:
    first = Ending(None, 9, 10, "signal", None, 9)
    done = Done(code=137, endings=[], first=first, running=[(0, 10), (1, 11)])
    assert done.line("torchrun") == (
        "torchrun was killed by SIGKILL; ranks 0, 1 are still running: stop them with kill 10 11"
    )


def test_who_stops_a_hanging_command_is_told_where_its_ranks_were() -> None:
    done = Done(code=143, stopped_by="SIGTERM", places="rank 0 in step 3, backward; rank 1 in step 3, input")
    assert done.line("torchrun") == (
        "the command was stopped by SIGTERM: rank 0 in step 3, backward; rank 1 in step 3, input"
    )
    assert Done(code=0, stopped_recorded=True, places="x").line("torchrun") is None


# Watching processes.


def record(folder: Path, rank: int) -> Path:
    stream = RankStream(folder, Writer(rank, 2, "j", {}, {}, True), max_bytes=1 << 20, clock_ns=lambda: 7)
    stream.flush()
    return stream.path


def say(folder: Path, **line: object) -> None:
    with (folder / LIVES).open("a") as file:
        file.write(json.dumps({"parent": 1, "unix_ns": time.time_ns(), **line}) + "\n")


def child(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", f"import os, sys, signal, time\n{code}"])


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd is Linux's")
@pytest.mark.parametrize("kernel", ["of Linux 6.15", "before"])
def test_a_killed_rank_whose_parent_was_faster_is_still_named(
    tmp_path: Path, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, killed, stopped = child("time.sleep(60)"), child("time.sleep(60)"), child("time.sleep(60)")
    for rank, process in enumerate((stopped, killed)):
        say(tmp_path, event="begins", pid=process.pid, rank=rank, ranks=2, how="initialized")
        record(tmp_path, rank)
    if kernel == "before":
        monkeypatch.setattr("real_backend.profile.watch._status_of_descriptor", lambda _: None)
    watch = Watch(tmp_path, command.pid)
    watch.turn(0)
    for process, number in ((killed, signal.SIGKILL), (stopped, signal.SIGTERM)):
        process.send_signal(number)
        process.wait()
        if process is stopped:
            say(tmp_path, event="ends", pid=stopped.pid, rank=0, how="signal", signal=15)
    command.kill()
    command.wait()
    while watch.running():
        watch.turn(1.0)
    first = first_failure(watch.endings())
    assert first is not None
    assert first.rank == 1
    known = kernel != "before" and tuple(map(int, platform.release().split(".")[:2])) >= (6, 15)
    assert (first.how, first.signal) == (("signal", 9) if known else ("unknown", None))
    watch.close_records()
    ended = read_rank(tmp_path / "rank-00001.rank").ended
    assert ended is not None
    assert ended.how == first.how


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd is Linux's")
def test_a_rank_that_begins_and_dies_between_two_looks_is_named(tmp_path: Path) -> None:
    command, killed = child("time.sleep(60)"), child("time.sleep(60)")
    say(tmp_path, event="begins", pid=killed.pid, rank=1, ranks=2, how="given")
    watch = Watch(tmp_path, command.pid)
    watch.turn(0)
    killed.kill()
    watch.turn(5)  # its death is seen before the line with which its process group began
    say(tmp_path, event="begins", pid=killed.pid, rank=1, ranks=2, how="initialized")
    watch.turn(0)
    assert not watch.running()
    first = first_failure(watch.endings())
    assert first is not None
    assert (first.rank, first.how, first.signal) == (1, "signal", 9)
    for process in (command, killed):
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own word on processes is Linux's")
def test_exit_codes_and_signals_are_seen_from_outside(tmp_path: Path) -> None:
    command = child("time.sleep(60)")
    codes = {0: "raise SystemExit(5)", 1: "os.kill(os.getpid(), signal.SIGKILL)", 2: "pass"}
    ranks: dict[int, subprocess.Popen[bytes]] = {}
    for rank, code in codes.items():
        ranks[rank] = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", f"import os, sys, signal\nsys.stdin.readline()\n{code}"],
            stdin=subprocess.PIPE,
        )
        say(tmp_path, event="begins", pid=ranks[rank].pid, rank=rank, ranks=3, how="initialized")
        record(tmp_path, rank)
    watch = Watch(tmp_path, command.pid)
    watch.turn(0)
    assert [rank for rank, _ in watch.running()] == [0, 1, 2]
    for each in ranks.values():
        assert each.stdin is not None
        each.stdin.close()
    while watch.running():
        watch.turn(1)
    found = {each.rank: (each.how, each.code, each.signal) for each in watch.endings()}
    assert found == {0: ("sys.exit", 5, None), 1: ("signal", None, 9), 2: ("exit", 0, None)}
    assert [each.words for each in watch.endings()][:2] == ["ended with exit code 5", "was killed by SIGKILL"]
    watch.close_records()
    ended = read_rank(tmp_path / "rank-00001.rank").ended
    assert ended is not None
    assert (ended.how, ended.signal) == ("signal", 9)
    command.kill()
    for each in (command, *ranks.values()):
        each.wait()


def test_a_python_helper_of_a_rank_is_not_taken_for_the_rank(tmp_path: Path) -> None:
    say(tmp_path, event="begins", pid=1 << 22, rank=1, ranks=2, how="given")
    say(tmp_path, event="begins", pid=(1 << 22) + 1, rank=1, ranks=2, how="given", parent=1 << 22)
    say(tmp_path, event="ends", pid=(1 << 22) + 1, rank=1, how="exit", code=0)
    say(tmp_path, event="ends", pid=1 << 22, rank=1, how="exception", code=1, text="ValueError: planted")
    watch = Watch(tmp_path, 1 << 22)
    watch.turn(0)
    assert [(each.rank, each.words) for each in watch.endings()] == [(1, "raised ValueError: planted")]


def test_a_process_id_of_another_host_is_not_looked_up_here(tmp_path: Path) -> None:
    mine = child("time.sleep(60)")
    say(tmp_path, event="begins", pid=mine.pid, rank=0, ranks=1, how="initialized", place="elsewhere pid:[1]")
    watch = Watch(tmp_path, 1 << 22)
    watch.turn(0)
    assert watch.running() == []
    mine.kill()
    mine.wait()
    watch.turn(0)
    assert watch.endings() == []
    say(tmp_path, event="ends", pid=mine.pid, rank=0, how="os._exit", code=7, place="elsewhere pid:[1]")
    watch.turn(0)
    assert [each.words for each in watch.endings()] == ["called os._exit(7)"]


def test_a_job_is_recorded_once_every_rank_has_recorded(tmp_path: Path) -> None:
    for rank in range(2):
        say(tmp_path, event="begins", pid=(1 << 22) + rank, rank=rank, ranks=2, how="initialized")
    watch = Watch(tmp_path, 1 << 22)
    watch.turn(0)
    (tmp_path / RECORDED).write_text("0\n0\n")
    assert not watch.recorded
    (tmp_path / RECORDED).write_text("0\n0\n1\n")
    assert watch.recorded
    assert watch.ranks == 2


def test_a_job_that_records_faster_than_we_look_is_not_taken_for_one_rank(tmp_path: Path) -> None:
    watch = Watch(tmp_path, 1 << 22)
    watch.turn(0)
    say(tmp_path, event="begins", pid=1 << 22, rank=0, ranks=2, how="initialized")
    (tmp_path / RECORDED).write_text("0\n")
    assert not watch.recorded
    (tmp_path / RECORDED).write_text("0\n1\n")
    assert watch.recorded
    assert watch.ranks == 2


def test_a_number_of_ranks_that_changes_is_seen(tmp_path: Path) -> None:
    for place, ranks in enumerate((3, 3, 2)):
        pid = (1 << 22) + place % 2  # the first process begins again
        say(tmp_path, event="begins", pid=pid, rank=0, ranks=ranks, how="initialized")
    watch = Watch(tmp_path, 1 << 22)
    watch.turn(0)
    assert watch.sizes == [3, 2]


def test_ranks_that_do_not_move_on_are_told_once(tmp_path: Path) -> None:
    for rank in range(2):
        say(tmp_path, event="begins", pid=(1 << 22) + rank, rank=rank, ranks=2, how="initialized")
        presence = Presence()
        presence.open(tmp_path / f"rank-{rank:05d}.rank")
        presence.put(7, Stage.BACKWARD if rank else Stage.INPUT, 1_000)
    watch = Watch(tmp_path, 1 << 22)
    watch.turn(0)
    assert watch.stalled(100.0) is None
    assert watch.stalled(99.0 + STALL_S) is None
    assert watch.stalled(101.0 + STALL_S) == (
        f"no rank has moved on for {STALL_S + 1:.0f} s: rank 0 in step 7, input; rank 1 in step 7, backward"
    )
    assert watch.stalled(200.0 + STALL_S) is None


def test_where_a_rank_was_outlives_it(tmp_path: Path) -> None:
    assert seen(tmp_path, 3) is None
    presence = Presence()
    presence.put(1, Stage.INPUT, 5)  # before there is a file
    presence.open(tmp_path / "rank-00003.rank")
    presence.put(12, Stage.AFTER_BACKWARD, 99)
    assert seen(tmp_path, 3) == Seen(12, 99, Stage.AFTER_BACKWARD)
    (tmp_path / "rank-00003.now").write_bytes(b"torn")
    assert seen(tmp_path, 3) is None


def test_long_stays_are_told_with_how_long() -> None:
    places = {0: Seen(3, 0, Stage.BACKWARD), 1: Seen(3, 58_000_000_000, Stage.INPUT)}
    assert at_places(places, 60_000_000_000) == "rank 0 in step 3, backward (for 60 s); rank 1 in step 3, input"
    assert ranks_words(range(10)) == "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"


# Processes without hooks.

VARIABLES = {"PYTHONPATH": f"{SITE}:/their/own", WANTED: "1"}


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["python", "-I", "train.py"], VARIABLES, "started with -I, which ignores PYTHONPATH: leave -I out"),
        (["python", "-uE", "train.py"], VARIABLES, "started with -E"),
        (["python3", "-W", "error", "-S", "-m", "train"], VARIABLES, "-S, which does not run sitecustomize"),
        (["python", "train.py"], {"PATH": "/bin"}, r"env -i \$\(env \| grep -E"),
        (
            ["python", "train.py"], VARIABLES | {"PYTHONPATH": "/elsewhere"},
            r"write export PYTHONPATH=/elsewhere:\$PYTHONPATH$",
        ),
        (["python", "train.py"], {WANTED: "1"}, "do not unset PYTHONPATH"),
    ],
)  # fmt: skip
def test_what_keeps_hooks_out_is_told_with_the_fix(
    arguments: list[str], variables: dict[str, str], message: str
) -> None:
    assert re.search(message, reason(arguments, variables) or "")


@pytest.mark.parametrize(
    "arguments",
    [["python", "train.py", "-I"], ["python", "-X", "importtime", "train.py"], ["python", "-m", "pkg", "-S"],
     ["python", "-c", "-E"], ["python"]],
)  # fmt: skip
def test_a_process_that_nothing_keeps_hooks_from_has_no_reason(arguments: list[str]) -> None:
    assert reason(arguments, VARIABLES) is None


def test_signals_are_named() -> None:
    assert Ending(0, 1, 1, "signal", signal=int(signal.SIGTERM)).words == "was ended by SIGTERM"
    assert Ending(0, 1, 1, "signal", signal=200).words == "was killed by signal 200"
