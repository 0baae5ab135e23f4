"""What a group's publisher is told when it starts: no key, only where keys are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Partner:
    """One partner of a group.

    Attributes:
        paced_bytes_per_s: 0: may use the live stream; more: paced only, at most so many bytes a second.
        may_request: may ask for observations.
        priority: what goes first over the paced stream.
    """

    paced_bytes_per_s: int = 0
    may_request: bool = False
    priority: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupSettings:
    """One release group.

    Attributes:
        name: the group's.
        node_id: of the node.
        keys: folder of keys.
        audit: file of the group's audit log.
        audit_rotate_bytes, audit_go_on: as for `Audit`.
        policy: digest of what the group is released; history of others is not served.
        partners: by name.
        history_bytes: kept in memory for gap fill.
        spool: folder of released messages on disk; None: none.
        spool_bytes, spool_age_s: what is kept there.
        signing_key: public half of the key that every message is signed with, hex; None: not signed.
    """

    name: str
    node_id: str
    keys: str
    audit: str
    policy: str = ""
    partners: Mapping[str, Partner] = field(default_factory=dict)
    history_bytes: int = 16 << 20
    spool: str | None = None
    spool_bytes: int = 1 << 30
    spool_age_s: float = 86_400.0
    signing_key: str | None = None
    audit_rotate_bytes: int = 64 << 20
    audit_go_on: bool = False

    def to_json(self) -> str:
        """As text, for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> GroupSettings:
        """The inverse of `to_json`.

        Raises:
            ValueError: not such text.
        """
        try:
            tree = json.loads(text)
            return cls(**{**tree, "partners": partners_of(tree["partners"])})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not the settings of a group: {error}") from None


def partners_of(tree: Mapping[str, Mapping[str, Any]]) -> dict[str, Partner]:
    """Partners from plain maps."""
    return {
        name: Partner(
            paced_bytes_per_s=int(fields["paced_bytes_per_s"]),
            may_request=bool(fields["may_request"]),
            priority=tuple(fields["priority"]),
        )
        for name, fields in tree.items()
    }


def partners_tree(partners: Mapping[str, Partner]) -> dict[str, dict[str, Any]]:
    """The inverse of `partners_of`."""
    return {name: asdict(partner) for name, partner in partners.items()}
