"""Cards for all shown signals of what was recorded."""

from __future__ import annotations

from loopkit._ids import Clock
from loopkit.capture import slot
from loopkit.signals.calls import calls_and_statements
from loopkit.signals.cards import Calibration, Call, calibrations, keep_cards
from loopkit.signals.state import held
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store


def calibrate(task: str | None = None, *, store: Store | None = None) -> list[Calibration]:
    """Hold what people only show (edits, copies, asking again) against what they say, in one task or all: a card each.

    A card has the area under the ROC curve with its interval, how good calls were where the signal showed what, from
    how many labelled pairs and users, weighted for who bothers to say anything; and whether the signal may train. Cards
    are kept, and `Dataset.create` goes by the last ones. Raises `NotFound` for an unknown task.
    """
    store = store or open_store()
    if task is not None:
        store.check_task(task)
    recorder = slot.recorder
    now = (Clock() if recorder is None else recorder.clock).now()
    state = held(store)
    found: list[Calibration] = []
    for name in [task] if task is not None else store.tasks():
        calls, said = calls_and_statements(name, store.spans(task=name), state)
        cards = calibrations(name, [Call(call, said.get(call.id, ())) for call in calls])
        if cards:
            keep_cards(store, name, cards, now)
        found += cards
    return found
