"""How alerts are put into words: what is so, and what to do. Pure."""

from __future__ import annotations

import math

PAGE = "docs/alerts.md"

ADVICE = {
    "activation-skipped-rate": "see which reasons of `excluded` grow in `rainfocus-engine destinations list --json`; "
    "no_email: send the plain address with the hash",
    "run-failed": "see why in `rainfocus-engine dead-letters list`",
    "delivery-delay": "see the destination's state and its rate in `rainfocus-engine top`",
    "breaker-open": "see RainFocus's API log and `rainfocus-engine destinations test`; nothing is lost by it",
    "token-failing": "check client id, secret and token_url with `rainfocus-engine check --connect`",
    "dead-letters-growing": "see why in `rainfocus-engine dead-letters list`, mend it, then replay them",
    "dead-letters-full": "replay or purge dead letters, or raise dead_letters.max_count; profiles wait until then",
    "journal-filling": "mend or pause what keeps the destination back, or raise its rate or journal.max_bytes",
    "disk-filling": "make room on the disk of data_dir; below journal.min_free_bytes events are refused",
    "watchdog": "keep the log record of the stall, look at the disk, then restart; nothing is lost by it",
}


def advice_of(when: str) -> str:
    return ADVICE[when]


def page_of(when: str) -> str:
    """Where the documentation says more."""
    return f"{PAGE}#{when}"


def amount(value: float, unit: str) -> str:
    if unit == "share":
        return f"{value * 100:.3g} %"
    if unit == "seconds":
        return f"{value:,.0f} s"
    if unit == "bytes":
        return f"{value / 1_048_576:,.0f} MiB"
    return f"{value:g}"


def window(seconds: float) -> str:
    if seconds == 3_600:
        return "in the last hour"
    return f"in the last {seconds / 60:g} minutes"


def summary(when: str, destination: str, figure: float, threshold: float, detail: str, window_seconds: float) -> str:
    """One clause, without a full stop."""
    whose = f"destination {destination}" if destination else "the engine"
    within, limit = window(window_seconds), f"the threshold is {_limit(when, threshold)}"
    shown = amount(figure, "share") if math.isfinite(figure) else "?"
    texts = {
        "activation-skipped-rate": f"{whose}: {shown} of activations were skipped {within}; {limit}",
        "run-failed": f"{whose}: {shown} of activations failed {within}; {limit}",
        "delivery-delay": f"{whose}: events take {amount(figure, 'seconds')}; {limit}",
        "breaker-open": f"{whose}: the breaker is open ({detail}), nothing is sent",
        "token-failing": f"{whose}: there is no token ({detail}), nothing is sent",
        "dead-letters-growing": f"{whose}: {amount(figure, 'letters')} new dead letters {within}; {limit}",
        "dead-letters-full": f"{shown} of dead_letters.max_count are kept; {limit}",
        "journal-filling": f"the journal is {amount(threshold, 'share')} full: {detail}",
        "disk-filling": f"{amount(figure, 'bytes')} are free on the disk of data_dir; {limit}",
        "watchdog": f"{whose}: stuck, though nothing known holds it up ({detail})",
    }
    return texts[when]


def resolved(when: str, destination: str, since: float, at: float) -> str:
    whose = f"destination {destination}" if destination else "the engine"
    return f"{whose}: {when} is over after {_duration(at - since)}"


def _limit(when: str, threshold: float) -> str:
    units = {"delivery-delay": "seconds", "dead-letters-growing": "letters", "disk-filling": "bytes"}
    return amount(threshold, units.get(when, "share"))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
