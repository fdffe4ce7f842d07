"""`[governance]` and a destination's consents: the tables, and AEP's own labels, marketing actions and core policies.

After Adobe's glossary of data usage labels and its core marketing actions (domain reference, 2.9).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from engine.config.kinds import Name, Table, Text, Texts

LABELS = (*(f"C{number}" for number in range(1, 13)), "I1", "I2", "S1", "S2", "PSPD", "RHD", "Third-Party")

EXPORT = "export-to-third-party"
ACTIONS = (
    *("analytics", "combine-with-directly-identifiable-data", "cross-site-targeting", "data-science"),
    *("email-targeting", EXPORT, "onsite-advertising", "onsite-personalization", "segment-match"),
    "single-identity-personalization",
)

CORE_POLICIES: dict[str, tuple[str, ...]] = {
    "C1": (EXPORT,),  # in aggregate only, and every record here is one person's
    "C2": (EXPORT,),
    "C3": ("combine-with-directly-identifiable-data",),
    "C4": ("cross-site-targeting", "email-targeting", "onsite-advertising", "onsite-personalization"),
    "C5": ("cross-site-targeting",),
    "C6": ("onsite-advertising",),
    "C7": ("onsite-personalization",),
    "C8": ("analytics",),
    "C9": ("data-science",),
    "C10": ("single-identity-personalization",),
    "C11": ("segment-match",),
    "C12": ACTIONS,  # no export in any way, and every activation is one
}
"""Label, which is the policy's name too -> the marketing actions it denies. Off unless named, as in AEP."""

ConsentPath = Annotated[
    str,
    Meta(
        pattern=r"^(collect|share|adID|personalize\.content|marketing\.[A-Za-z][A-Za-z0-9]*)\Z",
        description="a consent: 'collect', 'share', 'adID', 'personalize.content' or 'marketing.' and a channel, "
        "such as 'marketing.email' or 'marketing.any'",
    ),
]
ConsentValue = Literal["y", "p", "LI", "CT", "CP", "VI", "PI"]
CorePolicy = Literal["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11", "C12"]


class ConsentConfig(Table, frozen=True, kw_only=True):
    """One `[[destination.consent]]`: a consent that has to be given before anything of the person leaves."""

    required: ConsentPath = "marketing.email"
    accepted: Annotated[tuple[ConsentValue, ...], Meta(min_length=1)] = ("y",)
    absent: Literal["deny", "allow"] = "deny"


class AudienceConfig(Table, frozen=True, kw_only=True):
    """One `[[governance.audience]]`: the labels an audience has of its own, and the fields its rule looks at."""

    id: Text = "ups/all"
    labels: tuple[Name, ...] = ()
    fields: tuple[Text, ...] = ()


class PolicyConfig(Table, frozen=True, kw_only=True):
    """One `[[governance.policy]]`: which marketing actions such labels forbid."""

    name: Name = "policy"
    labels: Annotated[tuple[Name, ...], Meta(min_length=1)] = ("C2",)
    match: Literal["any", "all"] = "any"
    deny: Annotated[tuple[Name, ...], Meta(min_length=1)] = (EXPORT,)
    enabled: bool = True


class GovernanceConfig(Table, frozen=True, kw_only=True):
    core_policies: tuple[CorePolicy, ...] = ()
    custom_labels: tuple[Name, ...] = ()
    custom_actions: tuple[Name, ...] = ()
    labels: dict[str, Texts] = field(default_factory=dict)
    audiences: tuple[AudienceConfig, ...] = field(default=(), name="audience")
    policies: tuple[PolicyConfig, ...] = field(default=(), name="policy")

    def in_force(self) -> list[PolicyConfig]:
        """The core policies that are switched on, and the own ones."""
        core = [PolicyConfig(name=it, labels=(it,), deny=CORE_POLICIES[it]) for it in self.core_policies]
        return [*core, *(it for it in self.policies if it.enabled)]
