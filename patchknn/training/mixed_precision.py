"""Mixed precision in which a network's inputs stay as they are."""

from __future__ import annotations

from typing import Any

from lightning_fabric.plugins.precision import MixedPrecision


class UnroundedInputs(MixedPrecision):
    """Autocast as Fabric has it, but what the network is given is not rounded first.

    Networks may standardise what they are given: of an element that is large and hardly varies,
    rounding before that leaves noise alone. Layers that compute in half precision round by
    themselves.
    """

    def convert_input(self, data: Any) -> Any:
        """``data`` itself."""
        return data
