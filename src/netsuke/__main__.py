"""`python -m netsuke`: the command line without its launcher."""

from netsuke.cli import main

if __name__ == "__main__":
    main()
