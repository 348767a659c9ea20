"""The `mcsup` command."""

import sys

from mcsup._mcsup import main as command


def main():
    """Run the command with this process's arguments and return its exit code."""
    return command(["mcsup", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
