"""Schedules of CronJobs: crontab(5)'s five fields, ``@daily``, ``@every 1h30m``, as robfig/cron reads them.

    parse("*/5 8-18 * * mon-fri").after(moment, zone)

Times that a clock skips in spring never come; those that it shows twice in autumn come twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo

from msgspec import Struct

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[int, int, Mapping[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: i + 1 for i, name in enumerate(_MONTHS)}),
    (0, 6, {name: i for i, name in enumerate(_DAYS)}),
)
"""Minute, hour, day of the month, month, day of the week: least, most, names."""
_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
HORIZON = 366 * 5
"""Days within which a schedule must come true; one that does not (February 30) never does."""


class Field(Struct, frozen=True):
    """The numbers of one field; `any` if it restricts nothing."""

    values: frozenset[int]
    any: bool


class Schedule(Struct, frozen=True):
    """Five fields, or (`every`) a number of seconds."""

    fields: tuple[Field, ...] = ()
    every: float = 0.0

    def after(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """The first time after `moment` (aware), told by clocks in `zone`; None: never."""
        if self.every:
            return moment.replace(microsecond=0) + timedelta(seconds=self.every)
        local = moment.astimezone(zone)
        for days in range(HORIZON):
            day = local.date() + timedelta(days=days)
            if self._on(day):
                for at in self._times(day, zone, 0 if days else local.hour):
                    if at > moment:
                        return at
        return None

    def _on(self, day: date) -> bool:
        _, _, of_month, month, of_week = self.fields
        if day.month not in month.values:
            return False
        first, second = day.day in of_month.values, day.isoweekday() % 7 in of_week.values
        return (first and second) if of_month.any or of_week.any else (first or second)

    def _times(self, day: date, zone: tzinfo, hour: int) -> Iterator[datetime]:
        """The times of a day from `hour` on, in order."""
        for h in (h for h in sorted(self.fields[1].values) if h >= hour):
            found = set()
            for minute in self.fields[0].values:
                for fold in (0, 1):
                    there = datetime(day.year, day.month, day.day, h, minute, tzinfo=zone, fold=fold)
                    at = there.astimezone(UTC)
                    if at.astimezone(zone).replace(tzinfo=None) == there.replace(tzinfo=None):
                        found.add(at)
            yield from sorted(found)


def parse(text: str) -> Schedule:
    """The schedule that `text` means. Raises `ValueError` in the words of robfig/cron's ParseStandard."""
    if text.startswith("@"):
        if text in _DESCRIPTORS:
            return parse(_DESCRIPTORS[text])
        if text.startswith("@every "):
            every = text.removeprefix("@every ")
            parts = _DURATION.findall(every)
            if not parts or "".join(number + unit for number, unit in parts) != every:
                raise ValueError(f"failed to parse duration {text}")
            return Schedule(every=max(1.0, float(int(sum(float(n) * _UNITS[u] for n, u in parts)))))
        raise ValueError(f"unrecognized descriptor: {text}")
    fields = text.split()
    if fields and fields[0].startswith(("TZ=", "CRON_TZ=")):
        fields = fields[1:]
    if len(fields) != 5:
        raise ValueError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    return Schedule(tuple(_field(field, *known) for field, known in zip(fields, _FIELDS, strict=True)))


def _field(text: str, least: int, most: int, words: Mapping[str, int]) -> Field:
    values: set[int] = set()
    free = False
    for part in text.split(","):
        numbers, star = _range(part, least, most, words)
        values |= set(numbers)
        free = free or star
    return Field(frozenset(values), free)


def _range(text: str, least: int, most: int, words: Mapping[str, int]) -> tuple[range, bool]:
    """The numbers of a range, and whether it is all there are."""
    bounds, *steps = text.split("/")
    ends = bounds.split("-")
    if len(steps) > 1:
        raise ValueError(f"too many slashes: {text}")
    if len(ends) > 2:
        raise ValueError(f"too many hyphens: {text}")
    star = ends[0] in ("*", "?")
    numbers = []
    for end in [] if star else ends:
        number = words.get(end.lower(), -1) if not end.isdecimal() else int(end)
        if number < 0:
            raise ValueError(f'failed to parse int from {end}: strconv.Atoi: parsing "{end}": invalid syntax')
        numbers.append(number)
    if steps and not steps[0].isdecimal():
        raise ValueError(
            f'failed to parse int from {steps[0]}: strconv.Atoi: parsing "{steps[0]}": invalid syntax'
        )
    first, last = (numbers[0], numbers[-1]) if numbers else (least, most)
    if steps and len(numbers) == 1:
        last = most  # "N/step" means "N-max/step"
    if first < least:
        raise ValueError(f"beginning of range ({first}) below minimum ({least}): {text}")
    if last > most:
        raise ValueError(f"end of range ({last}) above maximum ({most}): {text}")
    if first > last:
        raise ValueError(f"beginning of range ({first}) beyond end of range ({last}): {text}")
    step = int(steps[0]) if steps else 1
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {text}")
    return range(first, last + 1, step), star and step == 1
