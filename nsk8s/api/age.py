"""How old something is, in kubectl's words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def age(since: str | None, now: datetime) -> str:
    """How long ago a moment (RFC 3339) was; one that cannot be read is unknown."""
    begin = moment(since)
    return "<unknown>" if begin is None else duration(now - begin)


def moment(text: str | None) -> datetime | None:
    """A moment that is written as RFC 3339 has it; None if it is not."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def duration(length: timedelta) -> str:
    """As kubectl shows a duration (k8s.io/apimachinery/pkg/util/duration, HumanDuration)."""
    seconds = int(length.total_seconds())
    if seconds < 120:
        return f"{max(seconds, 0)}s" if seconds >= -1 else "<invalid>"
    minutes, rest = divmod(seconds, 60)
    if minutes < 10:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours, left = divmod(minutes, 60)
    if hours < 8:
        return f"{hours}h{left}m" if left else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days, over = divmod(hours, 24)
    if days < 8:
        return f"{days}d{over}h" if over else f"{days}d"
    if days < 2 * 365:
        return f"{days}d"
    years, more = divmod(days, 365)
    return f"{years}y{more}d" if more and years < 8 else f"{years}y"
