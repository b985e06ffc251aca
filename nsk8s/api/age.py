"""How old something is, in kubectl's words."""

from __future__ import annotations

from datetime import datetime


def age(since: str | None, now: datetime) -> str:
    """As kubectl shows a duration (k8s.io/apimachinery/pkg/util/duration, HumanDuration)."""
    if not since:
        return "<unknown>"
    seconds = int((now - datetime.fromisoformat(since.replace("Z", "+00:00"))).total_seconds())
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
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
    return f"{days}d" if days < 730 else f"{days // 365}y{days % 365}d"
