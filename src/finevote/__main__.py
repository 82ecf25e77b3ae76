"""`python -m finevote`."""

from finevote.cli import main

if __name__ == "__main__":  # not in the processes that a training spawns
    main()
