"""``$(NAME)`` in command, args, env and subPathExpr."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def expanded(words: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """`$(NAME)` replaced as the kubelet does: unknown names stay, `$$` is `$`.

    Source: k8s.io/kubernetes/third_party/forked/golang/expansion.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if match[0] == "$$" else env.get(name, match[0])

    return tuple(re.sub(r"\$\$|\$\(([^)]*)\)", value, word) for word in words)
