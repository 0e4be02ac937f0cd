"""The errors a user can meet, as one tree.

KinemaError                 anything a user can put right; the command line prints it as one line and exits with 2
├── ConfigError             a recipe or option: unknown key, wrong type, impossible value
├── UnknownName             a name that is in no table (sampler, world, backbone...); lists the known ones
├── RequestError            a request that the model cannot fulfil: prompt, size, length, steps
├── DataError               a data set that cannot be built, read or trained on: too many unusable files, nothing kept, damaged shards
├── VideoError              a file that cannot be read or written as video
├── ModelError              a model folder: missing, truncated or wrong tensors
├── EndpointError           a model behind an address that does not answer, or not as it should
├── OutputError             nowhere to write: no permission, full disk, a folder in the way
└── TrainingError           a run that cannot go on: no data, too many non-finite steps, a checkpoint of another recipe
"""


class KinemaError(ValueError):
    """Base of all errors that a user can put right. The message says what was given, what is needed and what to do."""


class ConfigError(KinemaError):
    """A recipe or an option is wrong."""


class UnknownName(KinemaError):
    """A name is in no table."""


class RequestError(KinemaError):
    """A request cannot be fulfilled as it stands."""


class DataError(KinemaError):
    """A data set cannot be built, read or trained on."""


class VideoError(KinemaError):
    """A file cannot be read or written as video."""


class ModelError(KinemaError):
    """A model folder does not hold what its configuration says."""


class EndpointError(KinemaError):
    """A model behind an address does not answer, or not as it should."""


class OutputError(KinemaError):
    """A result cannot be written where it was asked for."""


class TrainingError(KinemaError):
    """A training run cannot go on."""
