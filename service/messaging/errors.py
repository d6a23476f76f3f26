"""What can go wrong between us and a queue."""


class MessagingError(Exception):
    """The root of this room's errors."""


class UnusableBrokerUrl(MessagingError):
    """A broker's URL cannot be used. The message says why, and quotes no secret of it."""


class NotConfirmed(MessagingError):
    """No confirm came for a message: whether the queue has it is unknown, so it must not be acknowledged."""


class BrokerUnavailable(NotConfirmed):
    """No connection to any broker, or publishing is blocked: the message was not taken. Try again later."""


class ConfirmTimeout(NotConfirmed):
    """The broker took longer than allowed to confirm: the message may or may not be queued."""


class Rejected(NotConfirmed):
    """The broker refused the message (nack): its queue is full or a node lacks resources."""


class Unroutable(NotConfirmed):
    """No queue is bound for the message. Run `payment-callbacks topology declare`."""


class SpoolFull(NotConfirmed):
    """The broker is away and the spool has reached its bound in bytes. Bring the broker back or raise the bound."""


class UndecodableMessage(MessagingError):
    """A message's body is not of a version that this release can read. It belongs in the dead letters."""


class QueueFileFailed(NotConfirmed):
    """The embedded queue's file cannot be used: the disk is full, or the file is damaged or not ours to open."""


class TopologyMismatch(MessagingError):
    """An exchange or queue of that name exists with other settings; the broker changes none in place."""


class TopologyMissing(MessagingError):
    """An exchange or queue does not exist. Run `payment-callbacks topology declare`."""
