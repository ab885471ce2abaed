"""Control transports: star, tree, gloo, MPI give the same schedules; strangers stay out; one interface only."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import real_backend as rb
from coordsim.protocol.links import FRAME
from coordsim.protocol.planes import NEGOTIATED
from real_backend.control import rendezvous
from real_backend.control.links import Kind, Link, LinkLost
from real_backend.control.rendezvous import Purpose, address_of, connect
from real_backend.control.stores import FolderStore
from real_backend.errors import CannotStart, ProtocolError, Unauthenticated
from tests.real_backend.ports import free_port
from tests.real_backend.processes import run

STEPS = 4
TENSORS = 5


def train() -> tuple[list[float], dict[str, int]]:
    """A few steps of a static model, ranks submitting in different orders."""
    rb.init()
    rank, ranks = rb.rank(), rb.size()
    found = []
    for step in range(STEPS):
        order = [(index + rank) % TENSORS for index in range(TENSORS)]
        handles = {
            index: rb.allreduce_async(torch.full((index + 1,), float(rank + step)), f"t{index}", rb.Sum)
            for index in order
        }
        found += [float(handles[index].wait().sum()) for index in range(TENSORS)]
    engine = rb.default_engine()
    rb.shutdown()
    counters = engine.counters.snapshot()
    for different in ("exchanges", "along"):  # by a rank's place in the tree, by what it happened to expect
        del counters[different]
    assert found == [
        (index + 1.0) * sum(rank + step for rank in range(ranks)) for step in range(STEPS) for index in range(TENSORS)
    ]
    return found, counters


@pytest.mark.parametrize("plane", sorted(NEGOTIATED))
@pytest.mark.parametrize("transport", ["star", "tree of radix 2", "gloo"])
def test_every_plane_over_every_transport(plane: str, transport: str) -> None:
    env = {"COORDSIM_CONTROL_PLANE": plane, "COORDSIM_RADIX": "2" if transport == "tree of radix 2" else "0"}
    if transport == "gloo":
        env |= {"COORDSIM_CONTROL": "gloo", "COORDSIM_CYCLE_TIME": "1ms"}
    found = run(5, train, env=env)
    assert all(values == found[0][0] for values, _ in found)
    counters = found[0][1]
    assert all(each == counters for _, each in found)
    if plane == "cached":
        assert counters["slow_cycles"] <= TENSORS
        assert counters["hits"] == TENSORS * (STEPS - 1)
    else:
        assert counters["slow_cycles"] == counters["cycles"]


def test_a_fixed_cycle_over_tcp() -> None:
    found = run(3, train, env={"COORDSIM_CYCLE_TIME": "2ms"})
    assert all(counters == found[0][1] for _, counters in found)


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs Debian's openmpi-bin (.ci/run installs it)")
@pytest.mark.parametrize("plane", ["cached", pytest.param("hierarchical", marks=pytest.mark.long)])
def test_mpi(plane: str, tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    script = tmp_path / "job.py"
    script.write_text(
        "import os\n"
        "from mpi4py import MPI\n"
        "os.environ.update(RANK=str(MPI.COMM_WORLD.rank), WORLD_SIZE=str(MPI.COMM_WORLD.size))\n"
        "from tests.real_backend.test_control import train\n"
        "values, counters = train()\n"
        "assert counters['hits'] or os.environ['COORDSIM_CONTROL_PLANE'] != 'cached'\n"
        "print('right', flush=True)\n"
    )
    done = subprocess.run(
        ["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "3", sys.executable, str(script)],
        capture_output=True, text=True, timeout=300, check=False, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COORDSIM_CONTROL": "mpi",
             "COORDSIM_CYCLE_TIME": "1ms", "COORDSIM_CONTROL_PLANE": plane, "COORDSIM_RADIX": "2",
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout.count("right") == 3, done.stdout + done.stderr


# Finding each other.


def tree(
    ranks: int, radix: int, store: FolderStore, before_the_children: Callable[[], None] = lambda: None
) -> list[Any]:
    """:func:`connect` on every rank, in threads, rank 0 first."""
    found: list[Any] = [None] * ranks

    def one(rank: int) -> None:
        try:
            found[rank] = connect(store, rank, ranks, radix, prefix="job", interface="127.0.0.1")
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(ranks)]
    threads[0].start()
    before_the_children()
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize(("ranks", "radix"), [(1, 1), (2, 1), (5, 4), (7, 2), (6, 3)])
def test_neighbours_are_those_of_the_tree(ranks: int, radix: int, tmp_path: Path) -> None:
    found = tree(ranks, radix, FolderStore(tmp_path))
    for rank, by_purpose in enumerate(found):
        for purpose in Purpose:
            neighbours = by_purpose[purpose]
            assert [link.peer for link in neighbours.children] == [
                child for child in range(radix * rank + 1, radix * rank + radix + 1) if child < ranks
            ]
            assert (neighbours.parent is None) == (rank == 0)
            if rank:
                neighbours.parent.send(Kind.AND, 3, rank.to_bytes(4, "little"))
    for by_purpose in found:
        for purpose in Purpose:
            for link in by_purpose[purpose].children:
                assert link.receive() == (Kind.AND, 3, link.peer.to_bytes(4, "little"))
            by_purpose[purpose].close()


def test_strangers_are_turned_away_and_the_job_starts_all_the_same(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    strangers: list[socket.socket] = []

    def intrude() -> None:
        host, _, port = store.get("job/address/0").decode().rpartition(":")
        strangers.extend(socket.create_connection((host, int(port))) for _ in range(3))
        strangers[0].sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(200))
        strangers[1].sendall(rendezvous._HELLO.pack(b"crd1", 0, 1, bytes(16), bytes(32)))
        strangers[2].close()

    found = tree(3, 2, store, before_the_children=intrude)
    assert [link.peer for link in found[0][Purpose.CONTROL].children] == [1, 2]
    for by_purpose in found:
        for neighbours in by_purpose.values():
            neighbours.close()
    for stranger in strangers:
        stranger.close()


def test_a_parent_that_does_not_know_the_secret_is_found_out(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as impostor:
        store.set("job/secret", "the job's")
        store.set("job/address/0", f"127.0.0.1:{impostor.getsockname()[1]}")

        def answer() -> None:
            connected, _ = impostor.accept()
            with connected:
                connected.sendall(bytes(16))
                rendezvous._exactly(connected, rendezvous._HELLO.size)
                connected.sendall(bytes(32))

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unauthenticated, match="is not rank 0 of this job"):
            connect(store, 1, 2, 1, prefix="job", interface="127.0.0.1", timeout_s=5)
        thread.join()


def test_who_does_not_come_is_named(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, timeout_s=0.3)
    with pytest.raises(CannotStart, match=r"ranks \[1, 2\] have not connected in time"):
        connect(store, 0, 3, 2, prefix="job", interface="127.0.0.1", timeout_s=0.3)
    with pytest.raises(CannotStart, match="rank 4 does not reach rank 1"):
        connect(store, 4, 5, 2, prefix="job", interface="127.0.0.1", timeout_s=0.3)


def test_listens_on_the_given_interface_only(tmp_path: Path) -> None:
    assert address_of("lo") == address_of("127.0.0.1") == "127.0.0.1"
    with pytest.raises(CannotStart, match=r"interface 'nosuch0': no IPv4 address .* this machine has .*lo"):
        address_of("nosuch0")
    refused: list[int] = []

    def knock_elsewhere() -> None:
        """127.0.0.2 is this machine as well: whoever listened on all interfaces would answer there."""
        port = int(FolderStore(tmp_path).get("job/address/0").decode().rpartition(":")[2])
        with socket.socket() as stranger:
            refused.append(stranger.connect_ex(("127.0.0.2", port)))

    for by_purpose in tree(2, 1, FolderStore(tmp_path), before_the_children=knock_elsewhere):
        for neighbours in by_purpose.values():
            neighbours.close()
    assert refused == [errno.ECONNREFUSED]


def pair() -> tuple[Link, Link]:
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    server.close()
    return Link(client, 0), Link(accepted, 1)


def test_a_link_carries_frames_of_any_size() -> None:
    one, other = pair()
    sizes = [0, 1, 65_535, 65_536, 1_000_000]
    sender = threading.Thread(target=lambda: [one.send(Kind.GATHER, size, bytes(size)) for size in sizes])
    sender.start()
    for size in sizes:
        assert other.receive() == (Kind.GATHER, size, bytes(size))
    sender.join()
    target = bytearray(5)
    one.send(Kind.DATA_UP, 1, b"12345")
    other.receive_into(Kind.DATA_UP, memoryview(target))
    assert target == b"12345"
    one.send(Kind.DATA_UP, 1, b"123")
    with pytest.raises(ProtocolError, match="rank 1 sent DATA_UP of 3 bytes, not DATA_UP of 5"):
        other.receive_into(Kind.DATA_UP, memoryview(target))
    one.close()
    other.receive()  # the frame that was refused is still there
    with pytest.raises(LinkLost):
        other.peek()
    other.close()


def test_garbage_is_a_protocol_error_not_an_allocation() -> None:
    one, other = pair()
    one.socket.sendall(FRAME.pack(2**32 - 1, Kind.AND, 0))
    with pytest.raises(ProtocolError, match="rank 1 sent no frame: 4294967295 bytes"):
        other.receive()
    one.close()
    other.close()


def disagree() -> str:
    with pytest.raises(rb.SettingsDiffer) as raised:
        rb.init(fusion_threshold_bytes=(1 + (int(os.environ["RANK"]) > 1)) << 20)
    return str(raised.value)


def test_ranks_with_other_settings_do_not_start_and_say_which() -> None:
    found = run(3, disagree)
    assert found[0] == found[1] == found[2]
    assert "fusion threshold (bytes, rounded): 1049088 on ranks 0-1; 2098176 on rank 2" in found[0]
