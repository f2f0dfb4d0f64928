"""Fixtures: a clean environment, recording into memory, and no network but loopback."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import loopkit
from loopkit import _host
from loopkit.cli.demo.machinery import model_path, model_server
from loopkit.errors import MissingExtra
from loopkit.testing import MemorySink, recording

# The same draws every time: a test run is a verdict on the commit. `make test-all` searches with new ones.
hypothesis.settings.register_profile("verdict", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "verdict"))

_VARIABLES = ("LOOPKIT_HOME", "LOOPKIT_DISABLED")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """No variable of the developer's, a home of one's own, nothing left recording, faults counted from zero."""
    for name in list(os.environ):
        if name in _VARIABLES or name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    monkeypatch.setenv("LOOPKIT_HOME", str(home))
    _host.faults.clear()
    yield home
    loopkit.shutdown()


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "unix"
        if host not in ("127.0.0.1", "::1", "localhost", "unix"):
            raise AssertionError(f"a test wants to connect to {host}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def recorded() -> Iterator[MemorySink]:
    """Recording into memory."""
    with recording() as sink:
        yield sink


@pytest.fixture
def stored() -> Iterator[MemorySink]:
    """Recording into memory and into a store that `open_store()` finds."""
    with recording(store=True) as sink:
        yield sink


@pytest.fixture(scope="session")
def model_url() -> Iterator[str]:
    """The embedded model behind an OpenAI-compatible address, once a session; skipped where it isn't installed."""
    try:
        path = model_path()
    except MissingExtra as missing:
        pytest.skip(str(missing))
    with model_server(path) as url:
        yield url
