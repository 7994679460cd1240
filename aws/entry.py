"""The image's first process: give up root, then become the module named on the command line.

Lambda starts the image as a user without rights; plain Docker and `sam local` start it as root. Knows nothing of
what it starts: `python -m aws.entry aws.runtime handler.lambda_handler`, or `server`.
"""

from startup import bundle  # noqa: F401  before whatever it can have imported

# isort: split
import os
import runpy
import sys

NOBODY = 65534
"""User and group id without rights of its own on every Linux."""


def give_up_root() -> None:
    """Become nobody when root. Raises SystemExit where the container may not change its user."""
    if os.getuid() != 0:
        return
    try:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    except PermissionError:
        sys.exit(f"The container may not give up root: start it with --user {NOBODY}:{NOBODY}.")


def main() -> None:
    """Run `sys.argv[1]` as a module, with the arguments after it."""
    if len(sys.argv) < 2:
        sys.exit("Nothing to run: name a module, for example `aws.runtime handler.lambda_handler`.")
    give_up_root()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
