"""The errors that darts raises on bad input, each also the builtin it refines."""


class DartsError(Exception):
    """Base of every error that darts raises knowingly; its message says what to do."""


class ConfigError(DartsError, ValueError):
    """A parameter, option or configuration key has a value that cannot work."""


class MissingBandError(DartsError, LookupError):
    """A tile or scene lacks bands that a component needs."""


class GridMismatchError(DartsError, ValueError):
    """Two datasets that must share one grid do not."""


class MissingDataError(DartsError, FileNotFoundError):
    """Data that should lie on disk is not there, or not all of it."""


class StoreError(DartsError, OSError):
    """A file or store is damaged, or cannot be written."""


class RemoteError(DartsError, ConnectionError):
    """A server could not be reached, refused, or sent something wrong; names what was asked for and the cause.

    Attributes:
        transient: whether it may go better later: the server could not be reached or was busy, however often asked.
    """

    def __init__(self, message: str = "", *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class CheckpointError(DartsError, ValueError):
    """A model file is refused."""


class DeviceError(DartsError, RuntimeError):
    """A device was asked for that is not there, or arrays live on different devices."""


class NotBuiltError(DartsError, NotImplementedError):
    """A documented function that this version does not offer yet."""
