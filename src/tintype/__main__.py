"""`python -m tintype` is `tintype`."""

from tintype.cli import main

if __name__ == "__main__":
    main()
