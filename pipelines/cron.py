"""Cron as Kubeflow Pipelines reads it (robfig/cron): six fields, seconds first. Comes in: a line. Goes out: when it fires.

Checked here because the server takes five fields too, as seconds to month: "0 3 * * *" is then every hour, not every night.
"""

import dataclasses
from datetime import datetime, timedelta

from adabert_core.errors import UserError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    ("second", 0, 59),
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 6),
)
_NAMES = {"month": dict(zip(_MONTHS, range(1, 13), strict=True)), "day of week": dict(zip(_DAYS, range(7), strict=True))}
_HORIZON_DAYS = 8 * 366 + 1  # a 29th of February comes within eight years


@dataclasses.dataclass(frozen=True)
class Cron:
    """A checked line: the values of each field, and whether a day must match both day fields or, as ever in cron, either."""

    second: int
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    both_days: bool

    def after(self, moment: datetime) -> datetime | None:
        """Returns the first firing after a moment, in the moment's time zone; None where no such date comes."""
        day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        for _ in range(_HORIZON_DAYS):
            if self._fires_on(day):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        fires = day.replace(hour=hour, minute=minute, second=self.second)
                        if fires > moment:
                            return fires
            day += timedelta(days=1)
        return None

    def _fires_on(self, day: datetime) -> bool:
        matches = (day.day in self.days, day.isoweekday() % 7 in self.weekdays)
        return day.month in self.months and (all(matches) if self.both_days else any(matches))


def parse_cron(line: str) -> Cron:
    """Returns the checked line.

    Raises:
        UserError: not six fields, a value out of its range, more than one firing a minute, or a date that never comes.
    """
    fields = line.split()
    if len(fields) != 6:
        hint = (
            f'; did you mean "0 {" ".join(fields)}"?' if len(fields) == 5 else ', for example "0 0 3 * * *" for 03:00 every day.'
        )
        raise UserError(f'--cron "{line}": write six fields, seconds first{hint}')
    seconds, minutes, hours, days, months, weekdays = (
        _values(text, *field, line) for text, field in zip(fields, _FIELDS, strict=True)
    )
    if len(seconds) > 1:
        raise UserError(f'--cron "{line}": it would fire {len(seconds)} times a minute; the first field is seconds, make it 0.')
    either = all(text[0] not in "*?" for text in (fields[3], fields[5]))
    cron = Cron(min(seconds), minutes, hours, days, months, weekdays, both_days=not either)
    if cron.after(datetime(2000, 1, 1)) is None:  # noqa: DTZ001 - any moment, any zone
        raise UserError(f'--cron "{line}": there is no such date.')
    return cron


def _values(text: str, field: str, low: int, high: int, line: str) -> frozenset[int]:
    """The values of one field: lists of *, ?, a, a-b, each with a step or without; a/n goes on to the end of the range."""
    names = _NAMES.get(field, {})
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            if span in ("*", "?"):
                start, end = low, high
            else:
                start = names[first.lower()] if first.lower() in names else int(first)
                end = (names[last.lower()] if last.lower() in names else int(last)) if dash else (high if slash else start)
            every = int(step) if slash else 1
        except ValueError:
            raise UserError(f'--cron "{line}": the {field} "{part}" is not a value, a range a-b, a list or a step */n.') from None
        if not (low <= start <= end <= high and every >= 1):
            raise UserError(f'--cron "{line}": the {field} "{part}" is not within {low}-{high}.')
        found.update(range(start, end + 1, every))
    return frozenset(found)
