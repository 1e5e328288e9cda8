"""Which generate of transformers is under way, seen from a forward that it makes.

A forward cannot say whether it is generate's own or one that a logits processor makes in between.
But generate's own comes first, and Python's stack knows which generate is running: the outermost
one of the model, as a processor may call generate again, within it.
"""

import sys
import weakref

# Objects that each generate makes for itself, by the names of its variables.
_OF_ONE_CALL = ("prepared_stopping_criteria", "prepared_logits_processor")


def running_generates(model) -> list:
    """An object of each generate of this model on this thread's stack, the innermost one first.

    Nobody should hold them: they are told apart by weak references.
    """
    found, frame = [], sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "generate":
            variables = frame.f_locals
            # A class's own generate may only call that of its base, which has these.
            if variables.get("self") is model:
                own = next((v for n in _OF_ONE_CALL if (v := variables.get(n)) is not None), None)
                found += [] if own is None else [own]
        frame = frame.f_back
    return found


class Generation:
    """One generate, and the prompt that it was given.

    ids: int64 (B, P) on the processor, as its first forward had them; None where a cache held the
        prompt's beginning.
    """

    def __init__(self, marker, ids):
        self._marker = weakref.ref(marker)
        self.ids = ids

    def is_of(self, marker) -> bool:
        """Whether it is the generate that running_generates found."""
        return self._marker() is marker

    def prompt_length(self, ids) -> int | None:
        """P where the rows begin with this generate's prompt: what follows was generated.

        Args:
            ids: int64 (B, L) on the processor.
        """
        if self.ids is None or ids.shape[0] != self.ids.shape[0]:
            return None
        length = self.ids.shape[1]
        same = length <= ids.shape[1] and bool((ids[:, :length] == self.ids).all())
        return length if same else None
