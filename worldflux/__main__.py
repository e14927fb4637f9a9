"""`python -m worldflux` is the `worldflux` command."""

from worldflux.cli.app import main

if __name__ == "__main__":
    main()
