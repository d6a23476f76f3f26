"""Errors of queues."""


class MessagingError(Exception):
    """The base of all errors of `service.messaging`."""


class UnusableBrokerUrl(MessagingError):
    """A broker's URL cannot be used. The message says why, and quotes no secret."""


class NotConfirmed(MessagingError):
    """No confirm came for a message. It may or may not be queued, so its callback must not be acknowledged."""


class BrokerUnavailable(NotConfirmed):
    """There is no connection to a broker, or it blocks publishers. The message was not sent. Try again later."""


class ConfirmTimeout(NotConfirmed):
    """The broker did not confirm in time. The message may or may not be queued."""


class Rejected(NotConfirmed):
    """The broker refused the message (nack), because its queue is full or a node lacks resources."""


class Unroutable(NotConfirmed):
    """No queue is bound for the message. The publisher declares the topology again."""


class SpoolFull(NotConfirmed):
    """The broker is away and the spool has reached its limit. Bring the broker back, or raise the limit."""


class UndecodableMessage(MessagingError):
    """This release cannot read a message's body. The message belongs in the dead letters."""


class QueueFileFailed(NotConfirmed):
    """The embedded queue's file cannot be used: the disk is full, or the file is damaged or not accessible."""


class TopologyMismatch(MessagingError):
    """An exchange or queue of that name exists with other settings, which the broker does not change in place."""


class TopologyMissing(MessagingError):
    """An exchange or queue does not exist. Run `payment-callbacks topology declare`."""
