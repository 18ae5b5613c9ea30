"""Licences of the packages that users install."""

import pytest

from entrypoints.licences import ABSENT, Licence, licences, pinned


def test_every_pinned_package_states_a_licence_that_users_can_live_with() -> None:
    found = {row.package: row for row in licences(pinned())}
    assert {name: row.problem for name, row in found.items() if row.problem} == {}
    assert found["click"].text == "BSD-3-Clause"
    assert found["torch"].version
    assert found["pywin32"].text == ABSENT


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "states no licence"),
        ("GPL-3.0-only", "GPL"),
        ("AGPL-3.0", "GPL"),
        ("GNU General Public License v3 (GPLv3)", "GPL"),
        ("LGPL-3.0-only", ""),
        ("MIT OR GPL-2.0-only", ""),
        ("GNU Lesser General Public License v3 (LGPLv3)", ""),
    ],
)
def test_what_a_person_must_look_at(text: str, problem: str) -> None:
    assert Licence("a", "1", text).problem == problem
