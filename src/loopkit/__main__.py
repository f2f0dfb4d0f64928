"""`python -m loopkit`: the command line."""

from loopkit.cli import main

if __name__ == "__main__":
    main()
