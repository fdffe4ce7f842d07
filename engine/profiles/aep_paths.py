"""Where the standard field groups of XDM keep what the target fields are about. The table of docs/aep.md.

Personal details come before those of work, one rule for address, phone and e-mail alike. A source's mapping wins.
Field groups: Demographic Details, Personal Contact Details, Work Contact Details, XDM Business Person Details.
"""

from __future__ import annotations

from typing import Any

EMAIL_PATHS = ("personalEmail.address", "workEmail.address")
"""Before the identity map."""

DEFAULT_PATHS: dict[str, tuple[str, ...]] = {
    "firstname": ("person.name.firstName",),
    "lastname": ("person.name.lastName",),
    "companyname": ("organizations",),
    "jobtitle": ("extendedWorkDetails.jobTitle",),
    "phone": ("mobilePhone.number", "homePhone.number", "workPhone.number"),
}
"""Target field -> paths; the first that leads to something counts, of a list its first entry."""

ADDRESSES = ("homeAddress", "mailingAddress", "workAddress")
"""The first that holds anything of an address is taken as a whole."""

ADDRESS_FIELDS = (
    ("street1", "address1"),
    ("street2", "address2"),
    ("city", "city"),
    ("stateProvince", "state"),
    ("state", "state"),
    ("postalCode", "zip"),
    ("countryCode", "countryid"),
)
"""Path below an address -> target field. ``stateProvince`` is an ISO 3166-2 code, ``state`` a name."""


def _tree() -> dict[str, Any]:
    """The same as nested steps; None where a value stands."""
    root: dict[str, Any] = {}
    below = [f"{address}.{step}" for address in ADDRESSES for step, _ in ADDRESS_FIELDS]
    for path in (*EMAIL_PATHS, *(path for paths in DEFAULT_PATHS.values() for path in paths), *below):
        *steps, last = path.split(".")
        node = root
        for step in steps:
            node = node.setdefault(step, {})
        node[last] = None
    return root


XDM_TREE = _tree()
