"""Names for operations that have none, so that repeated operations hit the response cache.

c10d's callers give no names, but promise that all ranks of a group issue the same operations in the same order. So a
name may depend on what was issued before, and on nothing else: not on what has completed or was waited for (``if rank
== 0: print(loss)`` waits on one rank only), nor on who issues it (under ``model.join()`` a rank without data issues
outside of any backward pass what the others issue inside one). The rule is:

- Every *signature* (operation, element type, elements, reduction, root) gets a number when it is first seen. The name
  contains the number instead of the signature, so that ranks that disagree use one name, and the coordinator notices.
- Then comes a *slot*: the lowest that no operation of that signature had among the last :data:`WINDOW` of the group.
  Repeated operations thus have few names, and all of them are known about :data:`WINDOW` operations after the start.
- So a name comes up again while its operation runs only when :data:`WINDOW` others were issued since. The caller then
  waits for that operation, which needs only what was issued before, so that it always ends.
- After an operation that failed on every rank all signatures are forgotten, so that ranks whose signatures differed
  agree again.

If one rank issues what all have issued before, and another issues something else in its place, their names differ and
both would wait for ever. :mod:`real_backend.c10d.order` detects this.
"""

from __future__ import annotations

from collections.abc import Hashable

WINDOW = 32
"""Largest number of operations under way before one has to wait. With a larger number, names take longer to come
back."""
SIGNATURES_KEPT = 1 << 16
"""Largest number of signatures. Where shapes never repeat, all are forgotten together, on all ranks at the same
operation."""


class Names:
    """Names of one group on one rank; equal on all ranks as long as their calls are equal."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[int, list[int]]] = {}
        """Number of each signature, and where each of its slots was used last."""
        self._given = 0
        self._issued = 0
        self._failed = -1

    def name(self, operation: str, signature: Hashable) -> str:
        """Return the name of the next operation; ``operation`` is part of ``signature`` as well."""
        known = self._known.get(signature)
        number, places = known if known is not None else self._new(signature)
        now, self._issued = self._issued, self._issued + 1
        for slot, place in enumerate(places):
            if now - place >= WINDOW:
                places[slot] = now
                break
        else:
            slot = len(places)
            places.append(now)
        life = "" if self._failed < 0 else f"after {self._failed}."
        return f"{operation}.{life}{number}.{slot}"

    def begin_anew(self, failed: int) -> None:
        """Forget all signatures because the ``failed``-th operation failed on every rank.

        Nothing happens if this is known of a later operation.
        """
        if failed > self._failed:
            self._failed, self._given, self._issued = failed, 0, 0
            self._known.clear()

    def _new(self, signature: Hashable) -> tuple[int, list[int]]:
        if len(self._known) >= SIGNATURES_KEPT:
            self._known.clear()
        new: tuple[int, list[int]] = (self._given, [])
        self._known[signature] = new
        self._given += 1
        return new
