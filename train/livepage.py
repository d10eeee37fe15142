"""RUN/report.html while the run goes on: kept fresh, at a bounded price, and never the run's end.

What can fail is known, and none of it is worth a run: matplotlib or jinja2 may be missing where
only training is installed, the disk may be full, and a method may record what cannot be drawn.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from train.errors import TrainError

log = logging.getLogger(__name__)

REPORT = "report.html"
SHARE = 0.02
"""Of a run's time that may go into its page."""


@dataclass
class LivePage:
    """Writes the page of a run; the first rank's."""

    folder: Path
    _seconds: float = 0.0
    """What the last page took."""
    _written: float = 0.0
    """When, by the monotonic clock."""
    _off: bool = False

    @property
    def exists(self) -> bool:
        """Whether there is a page of this run."""
        return (self.folder / REPORT).is_file()

    def update(self) -> None:
        """After a measurement: write the page, unless the last one was written too recently."""
        if time.monotonic() - self._written >= self._seconds / SHARE:
            self.write()

    def write(self) -> None:
        """Write the page; say what is wrong if that fails."""
        if self._off:
            return
        start = time.monotonic()
        try:
            from train.report import report

            report([str(self.folder.resolve())])
        except ImportError as error:
            self._off = True
            log.warning(
                "no page of this run: %s; metrics.jsonl has all of it. Install what is missing "
                "(pip install matplotlib jinja2), or copy %s to a machine that has it, and run "
                "`python -m train report %s`", error, self.folder, self.folder,
            )  # fmt: skip
        except (OSError, TrainError) as error:
            log.warning("the page of this run could not be written (%s); the run goes on", error)
        except Exception:  # whatever a method's own numbers may bring about: a run of days goes on
            log.exception("the page of this run could not be made; the run goes on without it")
        self._written = time.monotonic()
        self._seconds = self._written - start
