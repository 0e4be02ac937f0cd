"""The errors a user can meet, as one tree.

KinemaError                 any error that a user can correct; printed as one line, exit code 2
├── ConfigError             a recipe or option: unknown key, wrong type, impossible value
├── UnknownName             a name that is in no table (sampler, world, backbone...); lists the known ones
├── RequestError            a request that the model cannot fulfil: prompt, size, length, steps
├── DataError               a data set that cannot be built, read or trained on
├── VideoError              a file that cannot be read or written as video
├── ModelError              a model folder: missing, truncated or wrong tensors
├── EndpointError           a model behind an address that does not answer, or not as it should
├── ServeError              a server or worker that cannot start: store, address, keys
├── OutputError             a result that cannot be written: no permission, full disk, a folder in the way
├── TrainingError           a run that cannot continue: no data, non-finite steps, another recipe
└── ScalingError            a ladder of runs that determines no scaling law
"""


class KinemaError(ValueError):
    """Base of all errors that the user can correct.

    The message states what was given, what is needed and what to do.
    """


class ConfigError(KinemaError):
    """A recipe or an option is invalid."""


class UnknownName(KinemaError):
    """A name is in no table."""


class RequestError(KinemaError):
    """The model cannot fulfil a request."""


class DataError(KinemaError):
    """A data set cannot be built, read or trained on."""


class VideoError(KinemaError):
    """A file cannot be read or written as video."""


class ModelError(KinemaError):
    """A model folder is incomplete, damaged or of another kind."""


class EndpointError(KinemaError):
    """A chat endpoint does not answer, or answers outside its protocol."""


class ServeError(KinemaError):
    """A server or a worker cannot start."""


class OutputError(KinemaError):
    """A result cannot be written."""


class TrainingError(KinemaError):
    """A training run cannot continue."""


class ScalingError(KinemaError):
    """The runs of a ladder determine no scaling law, or no forecast."""
