"""Prints the manifest and temporal factor of a model of any family as JSON.

A process of its own, because it imports torch.
"""

import json
import sys

from kinema.checkpoints.families import find_family
from kinema.config import to_dict
from kinema.errors import KinemaError


def main() -> int:
    """The exit code; an error is the last line of standard error."""
    try:
        family, path = find_family(sys.argv[1])
        sizes = family.inspect(path).sizes
    except KinemaError as error:
        print(error, file=sys.stderr)
        return 2
    values = {"manifest": to_dict(sizes.manifest), "temporal_factor": sizes.vae.temporal_factor}
    print(json.dumps(values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
