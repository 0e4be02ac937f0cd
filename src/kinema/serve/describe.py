"""Prints the manifest of a model of any family as JSON. A process of its own, because it imports torch."""

import json
import sys

from kinema.config import to_dict
from kinema.errors import KinemaError
from kinema.generation.loading import manifest_of


def main() -> int:
    """The exit code; an error is the last line of standard error."""
    try:
        manifest = manifest_of(sys.argv[1])
    except KinemaError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"manifest": to_dict(manifest), "temporal_factor": 4}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
