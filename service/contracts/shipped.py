"""The contracts as this release ships them: files beside this module, so that a change of them is seen in review.

`payment-callbacks schemas service/contracts` writes them anew; the tests fail until they are what the code says.
"""

from importlib.resources import files

#: AsyncAPI 3.0: which events go through which channel.
ASYNCAPI = "asyncapi.json"
#: JSON Schema, draft 2020-12: what an event is.
PAYMENT_EVENT = "payment-event.json"


def read_shipped(name: str) -> bytes:
    """One of the documents: JSON, UTF-8."""
    return files("service.contracts").joinpath(name).read_bytes()
