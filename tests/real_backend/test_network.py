"""Emulated networks: they delay what they are told to, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess

import pytest

from real_backend.launches.network import address, inside, network, one_way_us, unavailable

WHY_NOT = unavailable()
needs_network = pytest.mark.skipif(WHY_NOT is not None, reason=f"no emulated networks: {WHY_NOT}")


def namespaces() -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if line.startswith(f"coordsim-{os.getpid()}-")]


@needs_network
@pytest.mark.parametrize("delay_ms", [2.0, 5.0])
def test_a_byte_takes_the_delay_and_little_more(delay_ms: float) -> None:
    with network(2, delay_ms / 1e3) as hosts:
        assert 1000 * delay_ms <= one_way_us(hosts) < 1000 * delay_ms + 2000
    assert namespaces() == []


@needs_network
def test_every_host_reaches_every_other_one() -> None:
    with network(3, 0.002) as hosts:
        for here, name in enumerate(hosts):
            for there in range(3):
                code = f"import socket; socket.create_connection(('{address(there)}', 9), 2)"
                command = inside(name, ["python3", "-c", code])
                ended = subprocess.run(command, capture_output=True, text=True, check=False)
                assert "Connection refused" in ended.stderr, (here, there, ended.stderr)


@needs_network
def test_nothing_is_left_when_something_fails_inside() -> None:
    def fail() -> None:
        with network(2, 0.002):
            assert len(namespaces()) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert namespaces() == []


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unavailable() == "it needs root"


def test_where_root_may_not_make_namespaces_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: str) -> None:
        raise RuntimeError("ip netns add: Operation not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: "/sbin/ip")
    monkeypatch.setattr("pathlib.Path.exists", lambda path: True)
    monkeypatch.setattr("real_backend.launches.network._ip", refused)
    assert unavailable() == "ip netns add: Operation not permitted"


def test_without_ip_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "apt-get install iproute2" in str(unavailable())
