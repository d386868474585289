"""Each task of an identity has a number of its own."""

from __future__ import annotations

import random
from collections import Counter

from futurefarm.farm.replicates import BUCKETS, Replicates


def test_the_tasks_of_an_identity_are_numbered_from_zero():
    chance = random.Random(1)
    identities = [chance.randbytes(16) for _ in range(5000)]
    calls = chance.choices(identities, k=20_000)
    replicates = Replicates()
    seen: Counter[bytes] = Counter()

    for identity in calls:
        assert seen[identity] == replicates.next(identity)
        seen[identity] += 1


def test_identities_that_share_a_bucket_are_told_apart():
    replicates = Replicates()
    identities = [bytes(2) + number.to_bytes(14, "little") for number in range(2000)]

    assert [0] * 2000 == [replicates.next(identity) for identity in identities]
    assert [1] * 2000 == [replicates.next(identity) for identity in identities]


def test_numbers_go_on_behind_those_that_are_noted():
    replicates = Replicates()
    one, other = bytes(16), bytes(range(16))
    for replicate in (2, 0, 1):
        replicates.note(one, replicate)
    replicates.note(other, 0)

    assert [3, 4, 1, 0] == [replicates.next(i) for i in (one, one, other, bytes([9] * 16))]


def test_every_bucket_is_used():
    replicates = Replicates()
    for number in range(BUCKETS):
        replicates.next((number << 2).to_bytes(2, "big") + bytes(14))

    assert {6} == {len(bucket or b"") for bucket in replicates._buckets}
