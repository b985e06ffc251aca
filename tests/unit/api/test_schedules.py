from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from nsk8s.api.schedules import parse

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("@every x", "failed to parse duration @every x"),
        ("@sometimes", "unrecognized descriptor: @sometimes"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("*/2/3 * * * *", "too many slashes: */2/3"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
    ],
)
def test_what_is_no_schedule(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        parse(text)
    assert str(caught.value) == wrong


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("* * * * *", ["2026-01-31T12:01", "2026-01-31T12:02"]),
        ("*/20 * * * *", ["2026-01-31T12:20", "2026-01-31T12:40", "2026-01-31T13:00"]),
        ("5/25 * * * *", ["2026-01-31T12:05", "2026-01-31T12:30", "2026-01-31T12:55", "2026-01-31T13:05"]),
        ("0 9-17/4 * * mon-fri", ["2026-02-02T09:00", "2026-02-02T13:00", "2026-02-02T17:00"]),
        ("30 2 1,15 * *", ["2026-02-01T02:30", "2026-02-15T02:30"]),
        ("0 0 31 * *", ["2026-03-31T00:00", "2026-05-31T00:00"]),
        ("0 0 13 * fri", ["2026-02-06T00:00", "2026-02-13T00:00"]),
        ("0 0 */10 * fri", ["2026-02-01T00:00", "2026-02-06T00:00"]),
        ("0 0 ? feb *", ["2026-02-01T00:00", "2026-02-02T00:00"]),
        ("@monthly", ["2026-02-01T00:00", "2026-03-01T00:00"]),
        ("@weekly", ["2026-02-01T00:00", "2026-02-08T00:00"]),
        ("@every 1h30m", ["2026-01-31T13:30", "2026-01-31T15:00"]),
        ("0 0 29 2 *", ["2028-02-29T00:00"]),
        ("0 0 30 2 *", [None]),
        ("CRON_TZ=UTC 0 13 * * *", ["2026-01-31T13:00"]),
    ],
)
def test_when(text: str, times: list[str | None]) -> None:
    at: datetime | None = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
    for time in times:
        assert at is not None
        at = parse(text).after(at, UTC)
        assert (at.strftime("%Y-%m-%dT%H:%M") if at else None) == time


def test_clocks_of_a_zone() -> None:
    winter = parse("0 9 * * *").after(datetime(2026, 1, 31, 12, tzinfo=UTC), BERLIN)
    summer = parse("0 9 * * *").after(datetime(2026, 7, 31, 12, tzinfo=UTC), BERLIN)
    assert winter == datetime(2026, 2, 1, 8, tzinfo=UTC)
    assert summer == datetime(2026, 8, 1, 7, tzinfo=UTC)


def test_what_a_clock_skips_and_what_it_shows_twice() -> None:
    spring = parse("30 2 * * *").after(datetime(2026, 3, 28, 12, tzinfo=UTC), BERLIN)
    assert spring == datetime(2026, 3, 30, 0, 30, tzinfo=UTC), "29 March has no 2:30"
    first = parse("30 2 * * *").after(datetime(2026, 10, 24, 12, tzinfo=UTC), BERLIN)
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert parse("30 2 * * *").after(first, BERLIN) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
