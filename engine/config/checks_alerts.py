"""The relations of `[[alert]]` and `[[notify]]`."""

from __future__ import annotations

from importlib.util import find_spec

from engine.config.alerts import AlertConfig, NotifyConfig
from engine.config.problems import Reader, is_loopback, split_url
from engine.config.relations import check_reference, check_secret
from engine.config.tables import Tables
from engine.errors import ConfigError

URL = ("url", "url_env", "url_file")
SECRET = ("secret", "secret_env", "secret_file")

OF_THE_ENGINE = ("dead-letters-full", "journal-filling", "disk-filling")
SHARES = ("activation-skipped-rate", "run-failed", "dead-letters-full", "journal-filling")
YES_OR_NO = ("breaker-open", "token-failing", "watchdog")
BUILT_IN_NAMES = {"journal-nearly-full": "journal-filling"}
"""Built-in alerts that are not named after their `when`."""


def check_alerts(config: Tables, reader: Reader) -> None:
    for index, target in enumerate(config.notify):
        _check_target(target, f"notify[{index}]", reader)
    for index, alert in enumerate(config.alerts):
        _check_alert(alert, f"alert[{index}]", config, reader)


def _check_target(target: NotifyConfig, key: str, reader: Reader) -> None:
    check_secret(target, key, URL, target.url_value, reader)
    if target.kind == "webhook":
        check_secret(target, key, SECRET, target.secret_value, reader)
        _check_url(target, key, reader)
        return
    if target.url:
        reader.report(f"{key}.url", "holds secrets, so a file is no place for it; name url_env or url_file")
    if any(getattr(target, it) for it in SECRET):
        reader.report(key, "has a secret, which only a webhook needs; leave it out", [f"{key}.{it}" for it in SECRET])
    if find_spec("apprise") is None:
        what = "needs the package apprise; install it with `pip install 'rainfocus-engine[alerts]'`"
        reader.report(f"{key}.kind", what)


def _check_url(target: NotifyConfig, key: str, reader: Reader) -> None:
    place = next((it for it in URL if getattr(target, it)), "url")
    try:
        parts = split_url(target.url_value())
    except ConfigError:
        return  # reported already
    except ValueError as error:
        reader.report(f"{key}.{place}", str(error))
        return
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        reader.report(f"{key}.{place}", "must be https; only an address of this machine may do without")


def _check_alert(alert: AlertConfig, key: str, config: Tables, reader: Reader) -> None:
    for index, name in enumerate(alert.to):
        if config.notify:
            check_reference(name, f"{key}.to[{index}]", "notify", config.notify, reader)
        else:
            reader.report(f"{key}.to[{index}]", f"there is no [[notify]] named {name!r}, nor any other; write one")
    if "*" in alert.destinations and len(alert.destinations) > 1:
        reader.report(f"{key}.destinations", "'*' means all; leave the others out, or the '*'")
    for index, name in enumerate(alert.destinations):
        check_reference(
            name.removeprefix("*"), f"{key}.destinations[{index}]", "destination", config.destinations, reader
        )
    about = [f"{key}.when"]
    if alert.when in OF_THE_ENGINE and alert.destinations != ("*",):
        reader.report(f"{key}.destinations", f"{alert.when} is about the whole engine; leave it out", about)
    if alert.when in SHARES and alert.threshold > 1:
        reader.report(f"{key}.threshold", f"{alert.threshold:g} is no share of 1; 0.01 is 1 %", about)
    if alert.when in YES_OR_NO and alert.threshold:
        what = f"{alert.when} has none, it is so or it is not; say with for_seconds how long it may be so"
        reader.report(f"{key}.threshold", what, about)
    _check_name(alert, key, config, reader)


def _check_name(alert: AlertConfig, key: str, config: Tables, reader: Reader) -> None:
    """A built-in alert gives way to an `[[alert]]` of its kind only."""
    kinds = {it.when for it in config.alerts}
    names = {it: it for it in AlertConfig.whens()} | BUILT_IN_NAMES
    of = names.get(alert.name, alert.when)
    if of not in kinds:
        reader.report(f"{key}.name", f"is that of a built-in alert about {of}; choose another", [f"{key}.when"])
