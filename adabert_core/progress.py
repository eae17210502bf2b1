"""The one progress helper: a bar on a terminal, elsewhere a plain line at most every few seconds."""

import logging
import sys
import time

from tqdm import tqdm

log = logging.getLogger(__name__)
_LINE_EVERY_SECONDS = 10.0


class Progress:
    """Counts up to `total`, shown as a bar or as lines with the figures given to `update` and the time left."""

    def __init__(self, label: str, total: int, start: int = 0) -> None:
        self.label, self.total, self.start, self.count = label, total, start, start
        self._figures: dict[str, float] = {}
        self._began = self._last = time.monotonic()
        self._bar = tqdm(total=total, initial=start, desc=label, leave=False) if sys.stderr.isatty() else None

    def update(self, count: int = 1, **figures: float) -> None:
        """Moves on by `count`; `figures` are shown beside the bar."""
        self.count += count
        self._figures = figures or self._figures
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(count)
            if figures and now - self._last > 1:
                self._last = now
                self._bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()})
        elif now - self._last >= _LINE_EVERY_SECONDS or (self.count == self.total and now - self._began > 1):
            self._last = now
            left = (now - self._began) / max(self.count - self.start, 1) * (self.total - self.count)
            shown = "".join(f"  {name} {value:.4g}" for name, value in self._figures.items())
            log.info("%s %d/%d  %.0f s left%s", self.label, self.count, self.total, left, shown)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
