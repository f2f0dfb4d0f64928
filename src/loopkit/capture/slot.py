"""The one recorder slot of the process: None until `init()`, and again after `shutdown()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loopkit.capture.recorder import Recorder

recorder: Recorder | None = None
