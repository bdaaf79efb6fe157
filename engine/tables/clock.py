"""How long the parts of a run take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds since the start and of each lap, by the clock that no one sets."""

    start: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    def lap(self, name: str) -> None:
        """The part that ends now was `name`."""
        self.seconds[name] = time.monotonic() - self.start - sum(self.seconds.values())

    def laps(self) -> dict[str, float]:
        """Seconds of each part, and `total` since the start, parts without a name included."""
        return {name: round(value, 3) for name, value in (*self.seconds.items(), ("total", time.monotonic() - self.start))}
