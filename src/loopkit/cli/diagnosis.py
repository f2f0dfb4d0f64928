"""What `loopkit doctor` looks at: the installation, the settings, the store, the spools."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

from loopkit._version import __version__
from loopkit._words import duration
from loopkit.config import Destination, home_directory, settings
from loopkit.errors import LoopkitError
from loopkit.export.place import spools
from loopkit.export.vitals import healths
from loopkit.signals.fold import fold
from loopkit.store.sqlite import FILE, Store
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
    """Every station, in the order of the pipeline. Changes nothing."""
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
    found += map(_probe, made.destinations)
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
        state = fold(store.feedback(), store.resolve)
        known = {span.id for span in store.spans()}
    except LoopkitError as error:
        return [Finding("store", False, str(error))]
    waiting = sum(slot[0] not in known and not slot[0].startswith(("trace:", "session:")) for slot in state.current)
    text = f"{home}: {stats['spans']} spans, {stats['feedback']} feedback events, {stats['bytes'] / 1e6:.1f} MB"
    said = f"{state.events} events, {state.conflicts} conflicting copies, {waiting} wait for their target"
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
