"""The errors a user can act on: each says what was got, what was expected and what to do."""


class AdapterProbeError(Exception):
    """Base of all errors that are the input's or the environment's, not the program's: exit status 2."""


class ConfigError(AdapterProbeError):
    """An option, a configuration file or a combination of them cannot be used."""


class DataError(AdapterProbeError):
    """A data set is unknown, malformed, or too small for what is asked of it."""


class TooFewGroups(DataError):
    """A data set is too small for the splits that are asked of it, and well otherwise."""


class ModelError(AdapterProbeError):
    """A model cannot be found, loaded, or used in the way that is asked."""


class CacheError(AdapterProbeError):
    """A cached or shipped file is not what it was when it was written."""


class OutputError(AdapterProbeError):
    """An output folder cannot be used."""
