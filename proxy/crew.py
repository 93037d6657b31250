"""The workers of a host: for each slot the one that serves it, and the one whose place it took, as long as that drains.

A slot has LANES lanes, as many as it has rows on the board, and each lane is one `Child` with arguments of its own. One
lane serves. A replacement is started in the other, is promoted when it serves, and the one before it drains in peace.
"""

from collections.abc import Iterator, Sequence

from proxy.children import Child, ChildSpec


class Crew:
    """Who serves which slot. `specs`: for each slot what its lanes start, at most LANES of them."""

    def __init__(self, specs: Sequence[Sequence[ChildSpec]]) -> None:
        self._lanes = [[Child(spec) for spec in lanes] for lanes in specs]
        self._serving = [0] * len(specs)
        self._coming: set[int] = set()
        self._places = {
            child: (slot, lane) for slot, lanes in enumerate(self._lanes) for lane, child in enumerate(lanes)
        }

    def __len__(self) -> int:
        """How many slots there are."""
        return len(self._lanes)

    def __iter__(self) -> Iterator[Child]:
        """All lanes of all slots."""
        for lanes in self._lanes:
            yield from lanes

    def __contains__(self, child: object) -> bool:
        return child in self._places

    @property
    def serving(self) -> list[Child]:
        """By slot, who serves it; whether there is a process now or not."""
        return [lanes[lane] for lanes, lane in zip(self._lanes, self._serving, strict=True)]

    def serves(self, child: Child) -> bool:
        """Whether a slot is this one's; else it comes or has been replaced."""
        slot, lane = self._places[child]
        return self._serving[slot] == lane

    def alone(self, child: Child) -> bool:
        """It serves a slot whose socket nobody else is about to take connections from."""
        return self.serves(child) and self.slot(child) not in self._coming

    def spare(self, slot: int) -> Child:
        """The other lane of a slot, in which a replacement can be started once it has no process."""
        return self._lanes[slot][1 - self._serving[slot]]

    def begin(self, slot: int) -> None:
        """A replacement is about to be started in the other lane."""
        self._coming.add(slot)

    def abandon(self, slot: int) -> None:
        """It does not come."""
        self._coming.discard(slot)

    def promote(self, slot: int) -> Child:
        """The other lane serves from now on. Answers who did until now."""
        self._coming.discard(slot)
        replaced = self._lanes[slot][self._serving[slot]]
        self._serving[slot] = 1 - self._serving[slot]
        return replaced

    def slot(self, child: Child) -> int:
        """Whose slot it is or was to be."""
        return self._places[child][0]

    def row(self, child: Child) -> int:
        """The number of its row on the board."""
        slot, lane = self._places[child]
        return lane * len(self._lanes) + slot
