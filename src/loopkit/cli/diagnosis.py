"""What `loopkit doctor` looks at: installation, settings, a probe through the pipeline, store, spools, processes."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

from loopkit._ids import Clock, Ids
from loopkit._version import __version__
from loopkit._words import duration
from loopkit.capture.recorder import Recorder
from loopkit.capture.sampling import Tail
from loopkit.capture.sinks import Sink
from loopkit.capture.snapshot import snapshot
from loopkit.config import Destination, Sampling, Settings, home_directory, settings
from loopkit.errors import LoopkitError
from loopkit.export.place import spools
from loopkit.export.vitals import healths
from loopkit.signals.state import held, orphans
from loopkit.store.beside import waiting_beside
from loopkit.store.outbox import untold
from loopkit.store.sink import StoreSink
from loopkit.store.sqlite import FILE, Store
from loopkit.types import Span
from loopkit.wire.encode import encode_request, encode_resource

_PROBE_SECONDS = 3.0
DISTRIBUTION = "loopkit-sdk"


@dataclass(frozen=True, slots=True)
class Finding:
    """One station: how it is, and what to do if it isn't well."""

    station: str
    good: bool
    text: str


def diagnose() -> list[Finding]:
    """Every station, in the order of the pipeline. Changes nothing here; destinations get a span named after it."""
    return [_installation(), *_settings(), *_store(), *_processes()]


def _probe(destination: Destination) -> Finding:
    """A request without spans through the destination's own transport: does somebody answer, and take it?"""
    from loopkit.export.transport import NotNow, Refused, transport_to

    transport = transport_to(replace(destination, timeout=min(destination.timeout, _PROBE_SECONDS)))
    try:
        transport.send(encode_request(encode_resource({}), "loopkit", __version__, ()))
    except NotNow as error:
        text = (
            f"{destination.endpoint} can't be reached ({error}): start it, or correct the endpoint; spans wait on disk"
        )
        return Finding("export", False, text)
    except Refused as error:
        text = f"{destination.endpoint} refuses ({error}): check its headers, protocol and path"
        return Finding("export", False, text)
    finally:
        transport.close()
    return Finding("export", True, f"{destination.endpoint} answers, and takes what we send ({destination.protocol})")


def _pipeline(made: Settings, destinations: list[Destination]) -> list[Finding]:
    """A probe through the whole pipeline, in a home directory of its own: a span that holds what must be redacted."""
    from loopkit.export.otlp import OtlpSink

    with tempfile.TemporaryDirectory(prefix="loopkit-doctor-") as directory:
        home = Path(directory)
        trial = replace(made, service="loopkit-doctor", home=home, store=home, sampling=Sampling())
        resource = partial(encode_resource, {"service.name": trial.service})
        sending = [OtlpSink(destination, trial, resource, __version__) for destination in destinations]
        store = Store(home)
        sinks: tuple[Sink, ...] = (StoreSink(store, resource, __version__, trial.limits, Clock()), *sending)
        recorder = Recorder(trial, sinks, Clock(), Ids(), Tail(lambda: None, resource))
        try:
            live = recorder.start("loopkit doctor", "task")
            assert live is not None  # nothing is sampled out
            live.input = snapshot({"probe": f"redact {_SECRET}"})
            live.finish()
            kept = recorder.worker.flush(_PROBE_SECONDS)
            found = [_kept(kept, store.spans())]
            for sink in sending:
                endpoint = sink.destination.endpoint
                taken = sink.drained(_PROBE_SECONDS) and not sink.lost
                said = "took a span that went through spool and transport"
                if not taken:
                    spool = next(each for name, each in spools(home).items() if name.partition(" ")[0] == endpoint)
                    reasons = [reason for _, reason in spool.letters()] or ["it still waits"]
                    said = f"did not take a span ({reasons[-1]}): look at what the receiver says, then try again"
                found.append(Finding("probe", taken, f"{endpoint} {said}"))
        finally:
            recorder.worker.close(_PROBE_SECONDS)
    return found


def _kept(flushed: bool, spans: list[Span]) -> Finding:
    if not flushed or len(spans) != 1:
        text = "a span that was recorded did not reach a store in the temporary directory: make room there (TMPDIR)"
        return Finding("probe", False, text)
    if _SECRET in str(spans[0].input):
        return Finding("probe", False, "a key was not redacted on the way to the store: report this with your version")
    return Finding("probe", True, "a span was recorded, redacted, written to a store and read back")


_SECRET = "sk-" + "loopkitDoctor0" * 2


def _installation() -> Finding:
    """Another project on PyPI also imports as `loopkit`; both in one environment overwrite each other."""
    others = sorted(set(packages_distributions().get("loopkit", ())) - {DISTRIBUTION})
    if others:
        text = f"{', '.join(others)} also installs a package named loopkit: uninstall it, then reinstall {DISTRIBUTION}"
        return Finding("installation", False, text)
    try:
        where = str(distribution(DISTRIBUTION).locate_file("loopkit"))
    except PackageNotFoundError:
        where = "not installed, imported from a source tree"
    return Finding("installation", True, f"{DISTRIBUTION} {__version__} on Python {sys.version.split()[0]} ({where})")


def _settings() -> list[Finding]:
    try:
        made = settings("doctor")
    except LoopkitError as error:
        return [Finding("settings", False, str(error))]
    found = [Finding("settings", not made.disabled, "recording is disabled" if made.disabled else "recording is on")]
    answers = [(destination, _probe(destination)) for destination in made.destinations]
    found += [finding for _, finding in answers]
    found += _pipeline(made, [destination for destination, finding in answers if finding.good])
    known = spools(made.home)
    for endpoint, spool in known.items():
        letters = spool.letters()
        text = f"{endpoint}: {sum(1 for _ in spool.waiting())} batches wait, {len(letters)} were refused"
        if letters:
            text += f", the last one with {letters[-1][1]!r}: mend that, then  loopkit spool replay"
        found.append(Finding("export", not letters, text))
    if not known and not made.destinations:
        found.append(Finding("export", True, "no OTLP destination: set OTEL_EXPORTER_OTLP_ENDPOINT to have one"))
    return found


def _store() -> list[Finding]:
    home = home_directory()
    if not (home / FILE).exists():
        return [Finding("store", True, f"no store in {home} yet: it is made by init()")]
    try:
        store = Store(home)
        stats = store.stats()
        state = held(store)
        early = len(orphans(store))
        waiting = untold(store)
    except LoopkitError as error:
        return [Finding("store", False, str(error))]
    text = f"{home}: {stats['spans']} spans, {stats['feedback']} feedback events, {stats['bytes'] / 1e6:.1f} MB"
    said = f"{state.events} events, {state.conflicts} conflicting copies, {early} wait for their target"
    beside = waiting_beside(home)
    if beside:
        said += f", {beside} wait beside the store, which was busy: the next process that records brings them over"
    if early:
        said += " (loopkit feedback --orphans)"
    if waiting:
        said += f", {len(waiting)} targets aren't told of elsewhere (loopkit feedback --untold)"
    return [Finding("store", True, text), Finding("feedback", True, said)]


def _processes() -> list[Finding]:
    """The last word of each process that records here."""
    found: list[Finding] = []
    for each in healths(home_directory()):
        delivered = sum(one.delivered for one in each.destinations)
        refused = sum(one.refused for one in each.destinations)
        ago = duration((time.time_ns() - each.at) / 1e9)
        text = (
            f"{each.service} (process {each.pid}, {ago} ago): {each.recorded} spans, "
            f"{delivered} delivered, {each.queued} queued; a call costs its caller {each.calling_us:.0f} µs, a span "
            f"{each.own_us:.0f} µs of processor time besides; {each.redacted} texts redacted"
        )
        lost = each.dropped + sum(one.dropped for one in each.destinations)
        if lost:
            text += f"; {lost} dropped: give it more room (spool_bytes), or sample"
        if refused:
            text += f"; {refused} refused: see  loopkit spool list"
        if each.not_held:
            text += f"; {each.not_held} sampled-out traces could not wait for feedback: give the ring more ring_bytes"
        if each.level:
            text += f"; over its budget (level {each.level}): sample, or give init() a larger budget"
        found.append(Finding("process", not (lost or refused or each.not_held or each.level), text))
    return found
