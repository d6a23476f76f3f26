"""What checking one body's sign may cost, counted and not timed: whoever sends the body chooses it."""

from dataclasses import dataclass

#: How many texts are hashed for one body, over all readings and dialects. A genuine one needs a few.
MOST_TEXTS = 64
#: How many bytes are written or hashed for each byte of a body.
MOST_BYTES_PER_BYTE = 16
#: A shorter body is given as much as one of this length: 64 texts of an ordinary callback fit.
LEAST_BODY_BYTES = 16 * 1024


@dataclass(slots=True)
class Budget:
    """What is left to be spent. Paid before the work is done, by the most that it can come to."""

    texts: int
    bytes: int
    #: Whether something was not done because it could not be paid.
    exceeded: bool = False

    @classmethod
    def of_body(cls, size_bytes: int, *, readings: int) -> "Budget":
        """The share of each of a body's readings. Equal shares: what is found depends on no order of the readings."""
        least_bytes = max(size_bytes, LEAST_BODY_BYTES)
        return cls(texts=MOST_TEXTS // readings, bytes=MOST_BYTES_PER_BYTE * least_bytes // readings)

    def pay_writing(self, most_bytes: int) -> bool:
        """Whether so many bytes may be written."""
        return self._pay(texts=0, most_bytes=most_bytes)

    def pay_text(self, most_bytes: int) -> bool:
        """Whether a text of so many bytes may be put together and hashed."""
        return self._pay(texts=1, most_bytes=2 * most_bytes)

    def _pay(self, *, texts: int, most_bytes: int) -> bool:
        if self.texts < texts or self.bytes < most_bytes:
            self.exceeded = True
            return False
        self.texts -= texts
        self.bytes -= most_bytes
        return True
